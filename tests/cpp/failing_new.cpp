#include "failing_new.h"

#include <atomic>
#include <cstdlib>
#include <limits>
#include <new>

namespace shardahead::testing {
namespace {

constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();

std::atomic<std::uint64_t> allocations{0};
std::atomic<std::uint64_t> first_to_fail{kNever};
std::atomic<std::uint64_t> last_to_fail{kNever};
std::atomic<bool> failed{false};
thread_local bool spared = false;

bool fails() {
  if (spared || first_to_fail == kNever) return false;
  const std::uint64_t number = allocations++;
  if (number < first_to_fail || number > last_to_fail) return false;
  failed = true;
  return true;
}

void* allocate(std::size_t bytes) {
  void* const memory = fails() ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void* allocate(std::size_t bytes, std::align_val_t alignment) {
  void* memory = nullptr;
  if (fails() || ::posix_memalign(&memory, static_cast<std::size_t>(alignment), bytes) != 0) {
    throw std::bad_alloc();
  }
  return memory;
}

}  // namespace

void fail_allocation(std::uint64_t number, Fails how) {
  spared = true;
  failed = false;
  allocations = 0;
  last_to_fail = how == Fails::once ? number : kNever;
  first_to_fail = number;
}

bool stop_failing() {
  first_to_fail = kNever;
  return failed;
}

}  // namespace shardahead::testing

using shardahead::testing::allocate;

void* operator new(std::size_t bytes) { return allocate(bytes); }
void* operator new[](std::size_t bytes) { return allocate(bytes); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, alignment);
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, alignment);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
