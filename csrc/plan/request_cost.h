// request_cost: what a request of its own costs, measured in the bytes that one worker brings in
// meanwhile, and which ranges are read as one by that. Pure: it is told what was fetched and how
// long that took, and has no clock of its own. Any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "base/byte_range.h"
#include "base/thread_safety.h"

namespace shardahead {

// Gaps up to this are read along as long as nothing has been measured, and are never refused for
// what they add up to.
inline constexpr std::uint64_t kSmallGapBytes = 64 * kKiB;
// Bringing in a page takes 1 us of processor time and asking for something 8 to 9 (docs/design.md).
inline constexpr std::uint64_t kLeastGapBytes = 32 * kKiB;
// What one request of most mounts carries at most: a longer gap costs one of its own anyway.
inline constexpr std::uint64_t kMostGapBytes = 1 * kMiB;
// However wrong a measurement is, gaps above kSmallGapBytes are no more of what is read than that.
// It often is: on a busy link what looks like a round trip is a queue.
inline constexpr std::uint64_t kMostGapShare = 32;

// One for all workers of a process.
class RequestCost {
 public:
  // A worker has brought in so many bytes, all of them asked for at once. The first is best a small
  // one, before others queue.
  void note(std::uint64_t bytes, std::chrono::nanoseconds took) noexcept;
  // A gap up to this costs less to read than a request does.
  [[nodiscard]] std::uint64_t gap_bytes() const noexcept;

 private:
  // Fetches that came one after the other.
  struct Window {
    std::uint32_t fetches = 0;
    double bytes = 0;
    double seconds = 0;
    double peak = 0;  // the best rate of a single one
  };
  struct Shortest {
    double seconds = 0;
    double bytes = 0;
  };
  // The older of two windows is forgotten when the newer one has so many.
  static constexpr std::uint32_t kWindowFetches = 64;
  static constexpr std::uint32_t kKnownFetches = 4;

  mutable Mutex mutex_;
  Window newer_ GUARDED_BY(mutex_);
  Window older_ GUARDED_BY(mutex_);
  Shortest shortest_ GUARDED_BY(mutex_);  // ever: what takes longer waited for others
};

// Sorted, merged `wanted` ranges as they are to be asked for: a gap between two of them is read
// along where it is no longer than `gap_bytes`, those above kSmallGapBytes up to kMostGapShare.
std::vector<ByteRange> requests_for(const std::vector<ByteRange>& wanted, std::uint64_t gap_bytes);

}  // namespace shardahead
