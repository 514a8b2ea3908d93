#include "plan/inflight.h"

namespace shardahead {

void InflightClimb::epoch(std::uint64_t settled_bytes, double seconds) {
  if (fixed_ || seconds <= 0) return;
  const double rate = static_cast<double>(settled_bytes) / seconds;
  if (!try_) {
    // Measured anew each time: the storage may have become slower or faster by itself.
    best_ = {bytes_, rate};
    if (rest_ > 0) {
      --rest_;
    } else {
      attempt(next_);
    }
  } else if (bytes_ == best_.bytes) {  // measured once more, to hold the next try against it
    best_.rate = rate;
    bytes_ = try_->bytes;
  } else {
    judge(*try_, rate);
  }
}

void InflightClimb::judge(Try& trying, double rate) {
  const bool less = trying.direction == Direction::less;
  if (rate > best_.rate * (less ? kGainWithLess : kGain)) {
    if (rate > best_.rate * kCertainGain) {
      accept(trying.direction, rate);
    } else if (++trying.confirmed > kConfirmations) {
      settle_for(bytes_);  // a step further in this direction is tried later
    } else {
      bytes_ = best_.bytes;
    }
  } else if (less && first_) {
    bytes_ = best_.bytes;
    attempt(Direction::more);
  } else {
    settle_for(best_.bytes);
  }
}

// The try was better: the next one goes further in its direction, and is compared with it.
void InflightClimb::accept(Direction direction, double rate) {
  vain_ = 0;
  first_ = false;
  best_ = {bytes_, rate};
  attempt(direction);
}

void InflightClimb::attempt(Direction direction) {
  const bool more = direction == Direction::more;
  next_ = more ? Direction::less : Direction::more;
  bytes_ = std::clamp(more ? bytes_ * 2 : bytes_ / 2, least_bytes_,
                      std::max(least_bytes_, kMaxInflightBytes));
  try_ = Try{direction, bytes_};
  if (bytes_ == best_.bytes) settle_for(best_.bytes);
}

void InflightClimb::settle_for(std::uint64_t bytes) {
  bytes_ = bytes;
  try_.reset();
  first_ = false;
  rest_ = kRest << std::min(vain_, kMaxDoublings);
  ++vain_;
}

}  // namespace shardahead
