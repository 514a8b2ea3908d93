// The mappings of a simulated rank: addresses at which nothing can be read, and copies out of them,
// which fault the pages in that all ranks of the node share.
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <iterator>

#include "simulated_content.h"
#include "simulated_node.h"

namespace shardahead::testing {

// Takes no time, and nor do unmap() and give_up(): a mutex may be held around them.
int RankFileIo::map(int descriptor, std::uint64_t length_bytes, MappedFor,
                    std::byte*& memory) noexcept {
  const auto found = open_.find(descriptor);
  if (found == open_.end()) return -EBADF;
  void* const reserved =
      ::mmap(nullptr, length_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return -errno;
  memory = static_cast<std::byte*>(reserved);
  mapped_[memory] = {found->second, memory};
  trace_.add(threads_.now(), rank_, "map", found->second);
  return 0;
}

int RankFileIo::unmap(std::byte* memory, std::uint64_t length_bytes) noexcept {
  if (mapped_.erase(memory) == 0) return -EINVAL;
  return ::munmap(memory, length_bytes) < 0 ? -errno : 0;
}

std::optional<RankFileIo::Mapped> RankFileIo::mapped(const std::byte* memory) const {
  const auto behind = mapped_.upper_bound(memory);
  if (behind == mapped_.begin()) return std::nullopt;
  return std::prev(behind)->second;
}

int RankFileIo::fault_in(std::byte*, std::uint64_t) noexcept { return -EINVAL; }

// Nothing of the mapping is held between two copies.
int RankFileIo::give_up(std::byte*, std::uint64_t) noexcept { return 0; }

std::int64_t RankFileIo::copy_mapped(const std::byte* from, std::uint64_t length_bytes,
                                     std::byte* to) noexcept {
  take_time();
  const auto found = mapped(from);
  if (threads_.burying() || !found) return -EFAULT;
  const std::uint32_t file = found->file;
  const ByteRange range{static_cast<std::uint64_t>(from - found->begin), length_bytes};
  trace_.add(threads_.now(), rank_, "copy", file, range.offset, range.length);
  const ByteRange window = {align_down(range.offset, kHugePageBytes),
                            std::max(cache_.options().populate_bytes, 4 * kKiB)};
  if (!wait_for(file, range, window)) return -EFAULT;
  fill_with_content(file, range, to);
  return static_cast<std::int64_t>(length_bytes);
}

}  // namespace shardahead::testing
