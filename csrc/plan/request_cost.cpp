#include "plan/request_cost.h"

#include <algorithm>

namespace shardahead {

void RequestCost::note(std::uint64_t bytes, std::chrono::nanoseconds took) noexcept {
  const double seconds = std::chrono::duration<double>(took).count();
  if (bytes == 0 || seconds <= 0) return;
  const auto brought_in = static_cast<double>(bytes);
  const MutexLock lock(mutex_);
  if (newer_.fetches == kWindowFetches) {
    older_ = newer_;
    newer_ = {};
  }
  if (newer_.fetches + older_.fetches == 0 || seconds < shortest_.seconds) {
    shortest_ = {seconds, brought_in};
  }
  ++newer_.fetches;
  newer_.bytes += brought_in;
  newer_.seconds += seconds;
  newer_.peak = std::max(newer_.peak, brought_in / seconds);
}

// The shortest fetch, without the time that its bytes take at the best rate seen, is a round trip.
// Where all fetches are alike that is nothing: it is not known then, and gaps are not read.
std::uint64_t RequestCost::gap_bytes() const noexcept {
  const MutexLock lock(mutex_);
  if (newer_.fetches + older_.fetches < kKnownFetches) return kSmallGapBytes;
  const double peak = std::max(newer_.peak, older_.peak);
  const double round_trip = std::max(shortest_.seconds - shortest_.bytes / peak, 0.0);
  const double rate = (newer_.bytes + older_.bytes) / (newer_.seconds + older_.seconds);
  const double bytes = std::min(rate * round_trip, static_cast<double>(kMostGapBytes));
  return std::max(static_cast<std::uint64_t>(bytes), kLeastGapBytes);
}

std::vector<ByteRange> requests_for(const std::vector<ByteRange>& wanted, std::uint64_t gap_bytes) {
  std::uint64_t allowed_bytes = 0;
  for (const ByteRange& range : wanted) allowed_bytes += range.length;
  allowed_bytes /= kMostGapShare;
  std::vector<ByteRange> requests;
  for (const ByteRange& range : wanted) {
    const std::uint64_t gap = requests.empty() ? kNoEnd : range.offset - requests.back().end();
    const bool small = gap <= kSmallGapBytes;
    if (gap > gap_bytes || (!small && gap > allowed_bytes)) {
      requests.push_back(range);
      continue;
    }
    if (!small) allowed_bytes -= gap;
    requests.back().length = range.end() - requests.back().offset;
  }
  return requests;
}

}  // namespace shardahead
