// byte_range: a half-open range of bytes within one file, and the arithmetic on it.
// Pure values: nothing here does I/O or knows what the bytes are. Any thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace shardahead {

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;
// Where a number of bytes, or a position, has no bound.
inline constexpr std::uint64_t kNoEnd = std::numeric_limits<std::uint64_t>::max();

constexpr std::uint64_t align_down(std::uint64_t value, std::uint64_t unit) {
  return value - value % unit;
}

constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t unit) {
  return align_down(value + unit - 1, unit);
}

struct ByteRange {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;

  // Of a range that would end beyond 2^64 - 1: that.
  [[nodiscard]] constexpr std::uint64_t end() const {
    return offset + std::min(length, kNoEnd - offset);
  }
  [[nodiscard]] constexpr bool empty() const { return length == 0; }
  friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

constexpr ByteRange intersect(ByteRange a, ByteRange b) {
  const std::uint64_t begin = std::max(a.offset, b.offset);
  const std::uint64_t end = std::min(a.end(), b.end());
  return begin < end ? ByteRange{begin, end - begin} : ByteRange{begin, 0};
}

// The range grown to whole units on both sides, but never past `limit`. Empty stays empty.
constexpr ByteRange grow_to_units(ByteRange range, std::uint64_t unit, std::uint64_t limit) {
  if (range.empty()) return range;
  const std::uint64_t begin = align_down(range.offset, unit);
  const std::uint64_t end = std::min(align_up(range.end(), unit), limit);
  return begin < end ? ByteRange{begin, end - begin} : ByteRange{begin, 0};
}

// Sorted by offset, without empty, overlapping or adjoining ranges.
std::vector<ByteRange> merge_ranges(std::vector<ByteRange> ranges);

// The parts of sorted, merged `ranges` that lie in `within`.
std::vector<ByteRange> intersect(const std::vector<ByteRange>& ranges, ByteRange within);

// Calls visit(ByteRange) for consecutive pieces of at most `step_bytes`; stops when it says false.
template <typename Visit>
bool for_each_step(ByteRange range, std::uint64_t step_bytes, Visit&& visit) {
  for (std::uint64_t at = range.offset; at < range.end(); at += step_bytes) {
    if (!visit(ByteRange{at, std::min(step_bytes, range.end() - at)})) return false;
  }
  return true;
}

}  // namespace shardahead
