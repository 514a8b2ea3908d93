// stall_watch: when the workers of one process have to look for claims that no one works on: of the
// dead every now and then, and also of the living where nothing has changed for long. Decides only:
// it is told what happens, and when, and has no clock of its own. Any thread.
#pragma once

#include <chrono>
#include <optional>

#include "base/doorbell.h"
#include "base/thread_safety.h"

namespace shardahead {

// How often a worker that finds nothing to do looks for claims of the dead.
inline constexpr auto kRecoveryInterval = std::chrono::milliseconds(100);
// After this long without any change on the board the claims of the living are taken over: an owner
// may be stopped, or sit in a read that never ends.
inline constexpr auto kStallTime = std::chrono::seconds(10);

class StallWatch {
 public:
  using Time = std::chrono::steady_clock::time_point;

  explicit StallWatch(Time now) : last_change_(now), last_look_(now) {}

  // A block of this process has ended.
  void note_change(Time now) noexcept;
  // A worker has found nothing to do. Whether claims are to be recovered now, and then whether all
  // has stood still for kStallTime (Claims::recover); nothing where the last time was a moment ago.
  std::optional<bool> look(const DoorbellWord& doorbell, Time now) noexcept;

 private:
  Mutex mutex_;
  Time last_change_ GUARDED_BY(mutex_);
  Time last_look_ GUARDED_BY(mutex_);
  std::uint32_t last_rings_ GUARDED_BY(mutex_) = 0;
};

}  // namespace shardahead
