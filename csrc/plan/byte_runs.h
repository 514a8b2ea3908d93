// byte_runs: where the bytes of a part of a tensor lie: runs of one length at regular strides, as
// narrowing a row-major tensor leaves them. As large as the tensor has dimensions, however many
// runs there are. Offsets are from the first byte of the part; packed offsets count the bytes of
// runs alone. A pure value: it reads nothing. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/byte_range.h"

namespace shardahead {

// Shorter gaps are brought into the page cache with what is around them: the kernel's readahead
// would read them anyway.
inline constexpr std::uint64_t kShortGapBytes = 64 * kKiB;

// What lies within is repeated so often, at that distance.
struct RunLevel {
  std::uint64_t count = 1;
  std::uint64_t stride_bytes = 0;
  friend bool operator==(const RunLevel&, const RunLevel&) = default;
};

class ByteRuns {
 public:
  // One run, which may be empty.
  explicit ByteRuns(std::uint64_t run_bytes) noexcept : run_bytes_(run_bytes) {}
  // `levels`: the outermost first. Throws std::invalid_argument where a run is empty, a count is 0,
  // a level does not lie apart from the next, or the part ends beyond 2^63 bytes.
  ByteRuns(std::uint64_t run_bytes, std::vector<RunLevel> levels);

  [[nodiscard]] std::uint64_t run_bytes() const noexcept { return run_bytes_; }
  [[nodiscard]] const std::vector<RunLevel>& levels() const noexcept { return levels_; }
  [[nodiscard]] std::uint64_t packed_bytes() const noexcept;
  // From the first byte to the last.
  [[nodiscard]] std::uint64_t extent_bytes() const noexcept;
  // Where a run begins.
  [[nodiscard]] std::uint64_t offset_of(std::uint64_t run) const noexcept;

  // The same bytes and those of gaps of up to so many, as longer runs: fewer, or as many.
  [[nodiscard]] ByteRuns joined(std::uint64_t max_gap_bytes) const;
  // Ascending, apart from each other.
  [[nodiscard]] std::vector<ByteRange> ranges() const;

  // How many packed bytes are a share of the work of reading all: those of so many bytes, where a
  // gap that is not read through costs as much as `gap_bytes`. One run at least, or a part of it.
  [[nodiscard]] std::uint64_t share_bytes(std::uint64_t work_bytes,
                                          std::uint64_t gap_bytes) const noexcept;

  friend bool operator==(const ByteRuns&, const ByteRuns&) = default;

 private:
  std::uint64_t run_bytes_;
  std::vector<RunLevel> levels_;
};

// One run after the other.
class RunCursor {
 public:
  // `runs` must outlive it.
  RunCursor(const ByteRuns& runs, std::uint64_t run);
  [[nodiscard]] std::uint64_t offset() const noexcept { return offset_; }
  // Behind the last one it begins again.
  void next() noexcept;

 private:
  const std::vector<RunLevel>& levels_;
  std::vector<std::uint64_t> at_;  // by level
  std::uint64_t offset_;
};

// What is read at once: all of `range`, of which the packed bytes are wanted.
struct RunRead {
  ByteRange range;
  ByteRange packed;
  [[nodiscard]] bool has_gaps() const noexcept { return range.length != packed.length; }
};

// The reads that together bring the packed bytes of a part.
class RunReads {
 public:
  // `runs` must outlive it.
  RunReads(const ByteRuns& runs, ByteRange packed);
  // The next one: it goes on over gaps of up to `max_gap_bytes`, and has `max_bytes` at most.
  std::optional<RunRead> next(std::uint64_t max_gap_bytes, std::uint64_t max_bytes);

 private:
  const ByteRuns& runs_;
  ByteRange left_;  // packed
  RunCursor cursor_;
};

// The packed bytes of `read`, whose range has been read to `from`.
void copy_runs(const ByteRuns& runs, const RunRead& read, const std::byte* from, std::byte* to);

}  // namespace shardahead
