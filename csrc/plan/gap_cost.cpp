#include "plan/gap_cost.h"

#include <algorithm>

namespace shardahead {
namespace {

constexpr double kKept = 63.0 / 64;  // of what was seen before, at each read
// One that waits while the link carries others' bytes tells of these: by itself a request is as
// fast as the faster ones.
constexpr double kSlowWeight = 0.2;
// A read that stalls is no measure of the others: it counts as so many times what was expected.
constexpr double kMostTimes = 4;
// What is assumed counts as so many reads, whose sizes differ by a MiB from their mean: a few
// reads, or reads of one size, do not tell a request from its bytes.
constexpr double kAssumedReads = 4;
constexpr double kAssumedVariance = static_cast<double>(kMiB) * static_cast<double>(kMiB);

}  // namespace

void GapCost::note(std::uint64_t read_bytes, std::chrono::nanoseconds duration) noexcept {
  if (read_bytes == 0 || duration.count() < 0) return;
  const auto bytes = static_cast<double>(read_bytes);
  double seconds = std::chrono::duration<double>(duration).count();
  const double expected = request_seconds_ + byte_seconds_ * bytes;
  const bool slow = expected > 0 && seconds > expected;
  if (slow) seconds = std::min(seconds, kMostTimes * expected);
  const double weight = slow ? kSlowWeight : 1;
  sums_.weight = kKept * sums_.weight + weight;
  sums_.bytes = kKept * sums_.bytes + weight * bytes;
  sums_.seconds = kKept * sums_.seconds + weight * seconds;
  sums_.bytes_squared = kKept * sums_.bytes_squared + weight * bytes * bytes;
  sums_.bytes_seconds = kKept * sums_.bytes_seconds + weight * bytes * seconds;
  fit();
}

// Least squares: the line on which the durations lie over the sizes.
void GapCost::fit() noexcept {
  const double bytes = sums_.bytes / sums_.weight;
  const double seconds = sums_.seconds / sums_.weight;
  if (seconds <= 0) return;  // on a clock that stands
  const double variance = sums_.bytes_squared - sums_.weight * bytes * bytes;
  const double covariance = sums_.bytes_seconds - sums_.weight * bytes * seconds;
  const double assumed_byte_seconds = seconds / (static_cast<double>(kDefaultBytes) + bytes);
  const double assumed = kAssumedReads * kAssumedVariance;
  const double slope =
      (covariance + assumed * assumed_byte_seconds) / (std::max(variance, 0.0) + assumed);
  // Faster the larger they are: the bytes cost nothing that is seen.
  byte_seconds_ = std::max(slope, 0.0);
  request_seconds_ = std::max(seconds - byte_seconds_ * bytes, 0.0);
  const auto most = static_cast<double>(kMostBytes);
  const bool beyond = request_seconds_ >= most * byte_seconds_;
  gap_bytes_ =
      beyond ? kMostBytes
             : std::max(static_cast<std::uint64_t>(request_seconds_ / byte_seconds_), kLeastBytes);
}

}  // namespace shardahead
