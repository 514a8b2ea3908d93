#include "plan/inflight.h"

namespace shardahead {

void InflightClimb::epoch(std::uint64_t settled_bytes, double seconds) {
  if (fixed_ || seconds <= 0) return;
  const double rate = static_cast<double>(settled_bytes) / seconds;
  if (trying_ == Trying::nothing) {
    // Measured anew each time: the storage may have become slower or faster by itself.
    best_rate_ = rate;
    best_bytes_ = bytes_;
    if (rest_ > 0) {
      --rest_;
    } else {
      attempt(next_);
    }
  } else if (bytes_ == best_bytes_) {  // measured once more, to hold the next try against it
    best_rate_ = rate;
    bytes_ = tried_bytes_;
  } else {
    judge(rate);
  }
}

void InflightClimb::judge(double rate) {
  const bool less = trying_ == Trying::less;
  if (rate > best_rate_ * (less ? kGainWithLess : kGain)) {
    if (rate > best_rate_ * kCertainGain) {
      accept(rate);
    } else if (++confirmed_ > kConfirmations) {
      settle_for(bytes_);  // a step further in this direction is tried later
    } else {
      bytes_ = best_bytes_;
    }
  } else if (less && first_) {
    bytes_ = best_bytes_;
    attempt(Trying::more);
  } else {
    settle_for(best_bytes_);
  }
}

// The try was better: the next one goes further in its direction, and is compared with it.
void InflightClimb::accept(double rate) {
  vain_ = 0;
  first_ = false;
  best_rate_ = rate;
  best_bytes_ = bytes_;
  attempt(trying_);
}

void InflightClimb::attempt(Trying what) {
  trying_ = what;
  confirmed_ = 0;
  next_ = what == Trying::more ? Trying::less : Trying::more;
  const std::uint64_t next = what == Trying::more ? bytes_ * 2 : bytes_ / 2;
  bytes_ = std::clamp(next, least_bytes_, std::max(least_bytes_, kMaxInflightBytes));
  tried_bytes_ = bytes_;
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
