#include "engine/stall_watch.h"

namespace shardahead {
namespace {

// Whoever has not looked for this long was at work, or stopped itself, and has not seen a stall.
constexpr auto kLongestPause = std::chrono::seconds(1);

}  // namespace

void StallWatch::note_change(Time now) noexcept {
  const MutexLock lock(mutex_);
  last_change_ = now;
}

std::optional<bool> StallWatch::look(const DoorbellWord& doorbell, Time now) noexcept {
  const MutexLock lock(mutex_);
  // Not what the caller was woken by: it may have been at work, or another have listened.
  const std::uint32_t rings = doorbell_seen(doorbell);
  if (rings != last_rings_ || now - last_look_ > kLongestPause) last_change_ = now;
  last_rings_ = rings;
  if (now - last_look_ < kRecoveryInterval) return std::nullopt;
  last_look_ = now;
  const bool stalled = now - last_change_ > kStallTime;
  if (stalled) last_change_ = now;
  return stalled;
}

}  // namespace shardahead
