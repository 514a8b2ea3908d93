#include "fiber.h"

#include <cxxabi.h>
#include <sys/mman.h>

#include <algorithm>
#include <new>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#elif defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace shardahead::testing {
namespace {

constexpr std::size_t kStackBytes = 512 * 1024;
constexpr std::size_t kGuardBytes = 64 * 1024;  // below it: an overflow is a fault, not a riddle

Fiber* running = nullptr;

// Stacks are used again: a mapping for each would be most of the cost of a short simulation.
std::vector<std::byte*>& free_stacks() {
  static std::vector<std::byte*> stacks;
  return stacks;
}

std::byte* take_stack() {
  auto& stacks = free_stacks();
  if (!stacks.empty()) {
    std::byte* const stack = stacks.back();
    stacks.pop_back();
    return stack;
  }
  void* const mapped = ::mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  ::mprotect(mapped, kGuardBytes, PROT_NONE);
  return static_cast<std::byte*>(mapped) + kGuardBytes;
}

// What a sanitizer has to know; nothing without one.
void begin_switch([[maybe_unused]] void** fake_stack, [[maybe_unused]] const void* bottom,
                  [[maybe_unused]] std::size_t bytes, [[maybe_unused]] void* thread) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(fake_stack, bottom, bytes);
#elif defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(thread, 0);
#endif
}

void end_switch([[maybe_unused]] void* fake_stack, [[maybe_unused]] const void** bottom,
                [[maybe_unused]] std::size_t* bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, bottom, bytes);
#endif
}

}  // namespace

Fiber::Fiber(std::function<void()> body) : body_(std::move(body)), stack_(take_stack()) {
#if defined(__SANITIZE_THREAD__)
  inside_thread_ = __tsan_create_fiber(0);
#endif
  ::getcontext(&inside_);
  inside_.uc_stack.ss_sp = stack_;
  inside_.uc_stack.ss_size = kStackBytes;
  ::makecontext(&inside_, &Fiber::enter, 0);
}

Fiber::~Fiber() {
#if defined(__SANITIZE_THREAD__)
  __tsan_destroy_fiber(inside_thread_);
#endif
  free_stacks().push_back(stack_);
}

void Fiber::resume() {
  Fiber* const before = std::exchange(running, this);
#if defined(__SANITIZE_THREAD__)
  outside_thread_ = __tsan_get_current_fiber();
#endif
  swap_exceptions();
  void* fake_stack = nullptr;
  begin_switch(&fake_stack, stack_, kStackBytes, inside_thread_);
  ::swapcontext(&outside_, &inside_);
  end_switch(fake_stack, nullptr, nullptr);
  swap_exceptions();
  running = before;
}

void Fiber::enter() {
  Fiber& self = *running;
  end_switch(nullptr, &self.outside_bottom_, &self.outside_bytes_);
  self.body_();
  self.body_ = nullptr;
  self.ended_ = true;
  self.leave(true);
}

void Fiber::suspend() { running->leave(false); }

void Fiber::leave(bool for_good) {
  begin_switch(for_good ? nullptr : &inside_fake_stack_, outside_bottom_, outside_bytes_,
               outside_thread_);
  ::swapcontext(&inside_, &outside_);
  end_switch(inside_fake_stack_, &outside_bottom_, &outside_bytes_);
}

void Fiber::swap_exceptions() {
  auto* const current = reinterpret_cast<std::byte*>(abi::__cxa_get_globals());
  std::swap_ranges(exceptions_.begin(), exceptions_.end(), current);
}

}  // namespace shardahead::testing
