#include "engine/lookout.h"

namespace shardahead {
namespace {

// Those that rest are called when they are needed. That they also look up by themselves, this
// often, is a precaution: no case is known that needs it.
constexpr auto kRestSlice = std::chrono::seconds(2);

}  // namespace

void Lookout::begin() {
  const MutexLock lock(mutex_);
  ++looking_;
}

// No one is called while another worker looks or listens, for that one finds what is left to do: it
// has read the doorbell before it looked, so it misses no ring since then.
void Lookout::end() {
  {
    const MutexLock lock(mutex_);
    --looking_;
    if (looking_ > 0 || listening_ || resting_ == 0) return;
    // It counts as looking from now on: else the next end() would call a second one.
    ++looking_;
    ++called_;
  }
  runtime_.ring_one(call_);
}

bool Lookout::wait_for_its_turn(const DoorbellWord& doorbell, std::uint32_t seen,
                                std::chrono::nanoseconds slice) {
  bool listens = false;
  std::uint32_t call_seen = 0;
  {
    const MutexLock lock(mutex_);
    listens = !listening_;
    listening_ = true;
    --looking_;
    if (!listens) ++resting_;
    call_seen = doorbell_seen(call_);
  }
  if (listens) {
    runtime_.wait_for_ring(doorbell, seen, slice);
  } else {
    runtime_.wait_for_ring(call_, call_seen, kRestSlice);
  }
  const MutexLock lock(mutex_);
  if (listens) {
    listening_ = false;
    ++looking_;
    return true;
  }
  --resting_;
  // Whichever wakes first answers the call.
  if (called_ > 0) {
    --called_;
  } else {
    ++looking_;
  }
  return false;
}

void Lookout::Worker::look() {
  if (looking_) return;
  looking_ = true;
  lookout_.begin();
}

void Lookout::Worker::work() {
  if (!looking_) return;
  looking_ = false;
  lookout_.end();
}

bool Lookout::Worker::wait(const DoorbellWord& doorbell, std::uint32_t seen,
                           std::chrono::nanoseconds slice) {
  return lookout_.wait_for_its_turn(doorbell, seen, slice);
}

}  // namespace shardahead
