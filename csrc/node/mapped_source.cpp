#include "node/mapped_source.h"

#include <algorithm>

namespace shardahead {

std::uint64_t MappedSource::copy(ByteRange range, std::byte* to) const noexcept {
  range = intersect(range, {0, size_bytes()});
  if (range.empty()) return 0;
  const std::int64_t copied = io().copy_mapped(memory() + range.offset, range.length, to);
  // What is mapped here is reclaimed last, and no one reads it again from here.
  const std::uint64_t begin = align_down(range.offset, page_bytes());
  const std::uint64_t end = std::min(align_up(range.end(), page_bytes()), size_bytes());
  io().give_up(memory() + begin, end - begin);
  return static_cast<std::uint64_t>(std::max<std::int64_t>(copied, 0));
}

}  // namespace shardahead
