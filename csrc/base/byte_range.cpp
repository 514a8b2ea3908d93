#include "base/byte_range.h"

namespace shardahead {

std::vector<ByteRange> merge_ranges(std::vector<ByteRange> ranges) {
  std::erase_if(ranges, [](const ByteRange& range) { return range.empty(); });
  std::sort(ranges.begin(), ranges.end(),
            [](const ByteRange& a, const ByteRange& b) { return a.offset < b.offset; });
  std::vector<ByteRange> merged;
  for (const ByteRange& range : ranges) {
    if (!merged.empty() && range.offset <= merged.back().end()) {
      const std::uint64_t end = std::max(merged.back().end(), range.end());
      merged.back().length = end - merged.back().offset;
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

std::vector<ByteRange> intersect(const std::vector<ByteRange>& ranges, ByteRange within) {
  std::vector<ByteRange> parts;
  if (within.empty()) return parts;
  auto range = std::partition_point(ranges.begin(), ranges.end(), [&](const ByteRange& candidate) {
    return candidate.end() <= within.offset;
  });
  for (; range != ranges.end() && range->offset < within.end(); ++range) {
    parts.push_back(intersect(*range, within));
  }
  return parts;
}

}  // namespace shardahead
