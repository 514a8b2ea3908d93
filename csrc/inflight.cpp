#include "inflight.h"

namespace shardahead {

void InflightClimb::epoch(std::uint64_t settled_bytes, double seconds) {
  if (fixed_ || seconds <= 0) return;
  const double rate = static_cast<double>(settled_bytes) / seconds;
  switch (trying_) {
    case Trying::nothing:
      // The storage may have become slower or faster by itself: what counts is what it is now.
      best_rate_ = rate;
      best_bytes_ = bytes_;
      if (rest_ > 0) {
        --rest_;
      } else {
        attempt(next_);
      }
      return;
    case Trying::less:
      // The same with less in flight is better: others share the server, and the first bytes come
      // sooner. But its rate is not kept: small losses must not add up.
      if (rate > best_rate_ * kLoss) {
        vain_ = 0;
        best_bytes_ = bytes_;
        first_ = false;
        attempt(Trying::less);
      } else if (first_) {
        bytes_ = best_bytes_;
        attempt(Trying::more);
      } else {
        settle_for(best_bytes_);
      }
      return;
    case Trying::more:
      if (rate > best_rate_ * kGain) {
        vain_ = 0;
        best_rate_ = rate;
        best_bytes_ = bytes_;
        attempt(Trying::more);
      } else {
        settle_for(best_bytes_);
      }
      return;
  }
}

void InflightClimb::attempt(Trying what) {
  trying_ = what;
  next_ = what == Trying::more ? Trying::less : Trying::more;
  const std::uint64_t next = what == Trying::more ? bytes_ * 2 : bytes_ / 2;
  bytes_ = std::clamp(next, least_bytes_, std::max(least_bytes_, kMaxInflightBytes));
  if (bytes_ == best_bytes_) settle_for(best_bytes_);
}

void InflightClimb::settle_for(std::uint64_t bytes) {
  bytes_ = bytes;
  trying_ = Trying::nothing;
  first_ = false;
  rest_ = kRest << std::min(vain_, kMaxDoublings);
  ++vain_;
}

}  // namespace shardahead
