// life: whether another participant of a board shows life, and how long it may show none, by the
// pace of the load. Whoever is stopped, by SIGSTOP, a debugger or a frozen cgroup, keeps its locks
// and its claims. Decides only: it is told what the board says, and when, and has no clock of its
// own. One thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

namespace shardahead {

// Silence is judged by the time that a block takes at present: within one of them each participant
// that is at work says something, so three leave room. To be wrong costs a look at blocks that
// another is bringing in. Before the first block has been settled nothing is known of it.
inline constexpr int kSilentBlocks = 3;
inline constexpr auto kLeastSilence = std::chrono::seconds(1);
inline constexpr auto kMostSilence = std::chrono::seconds(10);
// Where a block takes longer it counts as this much: its reader may have been stopped meanwhile.
inline constexpr auto kMostBlockTime = std::chrono::seconds(60);

// A mean that forgets: each block counts for an eighth. 0 is a mean of nothing.
std::chrono::microseconds mean_block_time(std::chrono::microseconds mean,
                                          std::chrono::microseconds latest) noexcept;

// How long a participant may show no life; `block_time` 0 where it is not known.
std::chrono::nanoseconds silence_allowed(std::chrono::microseconds block_time) noexcept;

// One participant, seen by another.
class LifeWatch {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // For how long it has shown none. `life` changes whenever it shows life. Only time in which it
  // was looked at counts: whoever was stopped together with it has not seen it silent.
  std::chrono::nanoseconds silence(std::uint32_t life, Time now) noexcept;

 private:
  // So much counts of the time between two looks, at most.
  static constexpr std::chrono::nanoseconds kLongestLook = std::chrono::milliseconds(250);

  std::optional<std::uint32_t> seen_;
  Time looked_;
  std::chrono::nanoseconds silence_{0};
};

}  // namespace shardahead
