#include "inflight.h"

namespace shardahead {

void InflightClimb::epoch(std::uint64_t settled_bytes, double seconds) {
  if (fixed_ || seconds <= 0) return;
  const double rate = static_cast<double>(settled_bytes) / seconds;
  switch (trying_) {
    case Trying::more:
      if (best_rate_ == 0 || rate > best_rate_ * kGain) {
        best_rate_ = rate;
        best_bytes_ = bytes_;
        attempt(Trying::more);
      } else {
        settle_for(best_bytes_);
      }
      return;
    case Trying::less:
      // The same with less in flight is better: others share the server, and the first bytes come
      // sooner.
      if (rate > best_rate_ * kLoss) {
        best_bytes_ = bytes_;  // but not its rate: small losses must not add up
        attempt(Trying::less);
      } else {
        settle_for(best_bytes_);
      }
      return;
    case Trying::nothing:
      // The storage may have become slower or faster by itself: what counts is what it is now.
      best_rate_ = rate;
      best_bytes_ = bytes_;
      if (rest_-- == 0) attempt(last_was_more_ ? Trying::less : Trying::more);
      return;
  }
}

void InflightClimb::attempt(Trying what) {
  trying_ = what;
  last_was_more_ = what == Trying::more;
  const std::uint64_t next = what == Trying::more ? bytes_ * 2 : bytes_ / 2;
  bytes_ = std::clamp(next, kMinInflightBytes, kMaxInflightBytes);
  if (bytes_ == best_bytes_) settle_for(best_bytes_);
}

void InflightClimb::settle_for(std::uint64_t bytes) {
  bytes_ = bytes;
  trying_ = Trying::nothing;
  rest_ = kRest;
}

}  // namespace shardahead
