#include "board/patience.h"

#include <algorithm>

namespace shardahead {

bool waits_for_others(const Meeting& meeting, std::uint32_t expected,
                      std::chrono::nanoseconds waited) {
  if (meeting.opened >= expected) return false;
  const bool all_here = meeting.opened + meeting.opening >= expected;
  return waited < kAbsentPatience || (all_here && waited < kOpeningPatience);
}

namespace {

// held_since does not count: it may become known although nothing has changed.
bool differ(const Standing& one, Standing other) {
  other.held_since = one.held_since;
  return one != other;
}

}  // namespace

bool Patience::go_on(Wait& wait, const Standing& standing, std::uint32_t rings, Time now) {
  if (standing.unsettled == 0) return false;
  // Who has waited for a block in vain does not wait for it again with each of its tensors, nor for
  // the next block while everything stands still.
  if (given_up_.contains(standing.first_unsettled)) return false;
  if (stalled_ && rings == stalled_rings_) return false;
  const bool changed = differ(standing, wait.standing);
  if (changed) wait.unchanged_since = now;
  if (changed || rings != wait.rings) wait.rung = now;
  wait.standing = standing;
  wait.rings = rings;
  // Only a block that someone is at work on can be held too long; one that no one has taken yet is
  // reached when those before it are done.
  const auto held_since = std::min(wait.unchanged_since, standing.held_since.value_or(now));
  const bool held_too_long = standing.claimed && now - held_since >= kBlockPatience;
  if (now - wait.rung < kConsumerPatience && !held_too_long) return true;
  given_up_.insert(standing.first_unsettled);
  stalled_ = true;
  stalled_rings_ = rings;
  return false;
}

}  // namespace shardahead
