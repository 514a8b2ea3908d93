// patience: how long a consumer waits for blocks that others bring in before it reads by itself.
// Decides only: it is told how the blocks stand, and when, and has no clock of its own. One
// Patience for all consumers of a prefetch; one thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <set>

#include "board/claims.h"

namespace shardahead {

// Without a change anywhere for this long, a block is not waited for any more.
inline constexpr auto kConsumerPatience = std::chrono::seconds(3);
// Nor is one that someone has had for this long, whatever else moves.
inline constexpr auto kBlockPatience = std::chrono::seconds(10);

// Where every open() of a file throws away what others have read of it: how long a rank waits, once
// it has opened its files, for ranks that have not come, and for those that are opening theirs.
inline constexpr auto kAbsentPatience = std::chrono::milliseconds(500);
inline constexpr auto kOpeningPatience = std::chrono::seconds(2);

// Whether one of `expected` ranks waits on, after it has `waited`.
bool waits_for_others(const Meeting& meeting, std::uint32_t expected,
                      std::chrono::nanoseconds waited);

class Patience {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // One wait for some blocks.
  struct Wait {
    Standing standing;
    std::uint32_t rings = 0;
    Time unchanged_since;  // these blocks
    Time rung;             // the last time that anything moved
  };

  // `rings` is what the doorbell said before the blocks were looked at.
  [[nodiscard]] Wait begin(const Standing& standing, std::uint32_t rings, Time now) const {
    return {standing, rings, now, now};
  }

  // Whether to wait on.
  bool go_on(Wait& wait, const Standing& standing, std::uint32_t rings, Time now);

 private:
  std::set<std::uint32_t> given_up_;  // blocks
  bool stalled_ = false;              // nothing has changed since `stalled_rings_`
  std::uint32_t stalled_rings_ = 0;
};

}  // namespace shardahead
