#include "reader/parallel_trial.h"

#include <algorithm>
#include <chrono>

namespace shardahead {

bool ParallelTrial::may_begin() const noexcept {
  switch (phase_) {
    case Phase::opening:
    case Phase::in_order: return running_ == 0;
    case Phase::trying:
      // Then the last of them come in, so that what several have read has a beginning and an end.
      return running_ < most_readers_ && begun_ < kTriedPieces * most_readers_ &&
             busy_ < kTriedTime;
    case Phase::parallel: break;
  }
  return running_ < most_readers_;
}

std::uint64_t ParallelTrial::piece_bytes() const noexcept {
  const auto at_most = [&](std::uint64_t bytes) { return std::min(piece_bytes_, bytes); };
  switch (phase_) {
    case Phase::opening: return at_most(kOpeningBytes);
    case Phase::trying: return at_most(kTriedPieceBytes);
    case Phase::in_order:
      return in_order_bytes_ == kInOrderBytes ? at_most(kInOrderBytes) : piece_bytes_;
    case Phase::parallel: break;
  }
  return small_bytes_left_ > 0 ? at_most(kSmallPieceBytes) : piece_bytes_;
}

void ParallelTrial::begun(Time now) noexcept {
  if (running_++ == 0) busy_since_ = now;
  ++begun_;
}

void ParallelTrial::ended(std::uint64_t read_bytes, Time now) noexcept {
  --running_;
  busy_ += now - busy_since_;
  busy_since_ = now;
  read_bytes_ += read_bytes;
  judge();
}

void ParallelTrial::enter(Phase phase) noexcept {
  phase_ = phase;
  begun_ = 0;
  read_bytes_ = 0;
  busy_ = Time::duration(0);
}

double ParallelTrial::bytes_per_second() const noexcept {
  const double seconds = std::chrono::duration<double>(busy_).count();
  return static_cast<double>(read_bytes_) / std::max(seconds, 1e-9);
}

void ParallelTrial::give_up() noexcept {
  in_order_bytes_ = retried_after_bytes_;
  retried_after_bytes_ *= 4;
  look_bytes_ = kFirstLookBytes;
  small_bytes_left_ = std::max(small_bytes_left_, kFirstLookBytes);
  lost_looks_ = 0;
  enter(Phase::in_order);
}

void ParallelTrial::judge() noexcept {
  if (most_readers_ == 1) return;
  const double bytes_per_second = this->bytes_per_second();
  switch (phase_) {
    case Phase::opening: return running_ > 0 ? void() : enter(Phase::in_order);
    case Phase::in_order:
      if (read_bytes_ < in_order_bytes_) return;
      in_order_bytes_per_second_ = bytes_per_second;
      return enter(bytes_per_second > kMemoryBytesPerSecond ? Phase::parallel : Phase::trying);
    case Phase::trying:
      if (running_ > 0 || (begun_ < kTriedPieces * most_readers_ && busy_ < kTriedTime)) return;
      return bytes_per_second < in_order_bytes_per_second_ ? give_up() : enter(Phase::parallel);
    case Phase::parallel: return look(bytes_per_second);
  }
}

void ParallelTrial::look(double bytes_per_second) noexcept {
  // No longer than one would take for it: then it is lost.
  const double one_seconds = static_cast<double>(look_bytes_) / in_order_bytes_per_second_;
  const bool lost = busy_ > std::chrono::duration<double>(one_seconds);
  if (read_bytes_ < look_bytes_ && !lost) return;
  const bool small = small_bytes_left_ > 0;
  small_bytes_left_ -= std::min(small_bytes_left_, read_bytes_);
  if (bytes_per_second >= in_order_bytes_per_second_) {
    lost_looks_ = 0;
    look_bytes_ = std::min(2 * look_bytes_, kLastLookBytes);
    return enter(Phase::parallel);
  }
  if (!small) {
    small_bytes_left_ = small_bytes_;
    small_bytes_ *= 4;
  } else if (++lost_looks_ == kMostLostLooks) {
    return give_up();
  }
  look_bytes_ = kFirstLookBytes;
  in_order_bytes_ = kInOrderBytes;
  enter(Phase::opening);  // until those that are being read have come in
}

}  // namespace shardahead
