#include "plan/inflight.h"

namespace shardahead {

void InflightClimb::epoch(std::uint64_t settled_bytes, double seconds, bool filled) {
  if (fixed_ || seconds <= 0) return;
  const Measured now{bytes_, static_cast<double>(settled_bytes) / seconds, filled};
  if (!try_) {
    // Measured anew each time: the storage may have become slower or faster by itself.
    best_ = now;
    if (rest_ > 0) {
      --rest_;
    } else {
      attempt(next_);
    }
  } else if (bytes_ == best_.bytes) {  // measured once more, to hold the next try against it
    best_ = now;
    bytes_ = try_->bytes;
  } else {
    judge(*try_, now);
  }
}

void InflightClimb::judge(Try& trying, const Measured& now) {
  const bool less = trying.direction == Direction::less;
  const double rate = now.rate;
  note_limit(trying, now);
  if (rate > best_.rate * (less ? kGainWithLess : kGain)) {
    if (rate > best_.rate * kCertainGain) {
      accept(trying.direction, now);
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

// What the larger one of the two says, where it was in flight at all. A gain counts once it is one.
void InflightClimb::note_limit(const Try& trying, const Measured& now) noexcept {
  const bool less = trying.direction == Direction::less;
  const Measured& more = less ? best_ : now;
  const Measured& fewer = less ? now : best_;
  if (!more.filled) {
    if (limit_ == Limit::unknown) limit_ = Limit::threads;
  } else if (more.rate <= fewer.rate * kGain) {
    limit_ = Limit::storage;
  } else if (!less &&
             (trying.confirmed == kConfirmations || more.rate > fewer.rate * kCertainGain)) {
    limit_ = Limit::unknown;
  }
}

// The try was better: the next one goes further in its direction, and is compared with it.
void InflightClimb::accept(Direction direction, const Measured& now) {
  vain_ = 0;
  first_ = false;
  best_ = now;
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
