#include "reader/tensor_memory.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

#include "base/byte_range.h"
#include "node/file_io.h"

namespace shardahead {
namespace {

// Of the mapping, so that it holds whole huge pages: first touch of small ones is slow.
std::byte* map_anonymous(std::uint64_t size_bytes) {
  constexpr int kProtection = PROT_READ | PROT_WRITE;
  void* mapped = ::mmap(nullptr, size_bytes, kProtection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  if (size_bytes >= kHugePageBytes) ::madvise(mapped, size_bytes, MADV_HUGEPAGE);
  return static_cast<std::byte*>(mapped);
}

}  // namespace

TensorMemory::TensorMemory(const std::vector<std::uint64_t>& lengths_bytes) {
  std::uint64_t packed_bytes = 0;
  std::uint64_t spread_bytes = 0;
  for (const std::uint64_t length : lengths_bytes) {
    spread_bytes = align_up(spread_bytes, kTensorAlignBytes);
    places_.push_back({spread_bytes, length});
    packed_bytes += length;
    spread_bytes += length;
  }
  // So far behind that no tensor is moved onto bytes of one that has not been moved yet.
  landing_offset_ = spread_bytes - packed_bytes;
  size_bytes_ = spread_bytes;
  if (size_bytes_ > 0) memory_ = map_anonymous(size_bytes_);
}

TensorMemory::~TensorMemory() {
  if (memory_ != nullptr) ::munmap(memory_, size_bytes_);
}

void TensorMemory::spread() noexcept {
  std::uint64_t from = landing_offset_;
  for (const Place& place : places_) {
    if (from != place.offset) std::memmove(memory_ + place.offset, memory_ + from, place.length);
    from += place.length;
  }
}

std::uint64_t TensorMemory::needed_bytes(const std::vector<std::uint64_t>& lengths_bytes) noexcept {
  std::uint64_t bytes = 0;
  for (const std::uint64_t length : lengths_bytes) {
    bytes = align_up(bytes, kTensorAlignBytes) + length;
  }
  return bytes;
}

}  // namespace shardahead
