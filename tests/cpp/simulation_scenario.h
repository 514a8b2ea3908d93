// simulation_scenario: what a simulation is made of, drawn from its seed: the files, the node, the
// ranks with their consumers, and what goes wrong. A plain value. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "faulty_file_io.h"
#include "plan/plan.h"
#include "plan/strategy.h"
#include "simulated_node.h"

namespace shardahead::testing {

inline constexpr std::uint32_t kAllThreads = 1000;

// What a rank finds where the board should be.
enum class BoardPlace { shared, missing, full };
// What lies there already.
enum class BoardState { absent, left_behind, random_bytes, other_version, other_size };

// A rank that reads tensors into memory of their own: mode pread.
struct ReadingScenario {
  // Its engine finds out whether the mount keeps pages; where it does not, the ranks of the node
  // meet, and share what they read. Else it reads by itself, without an engine.
  bool together = false;
  std::uint64_t ahead_bytes = 0;
  std::uint64_t piece_bytes = 0;
};

struct RankScenario {
  std::optional<ReadingScenario> reading;
  std::chrono::nanoseconds starts_after{0};
  std::uint32_t threads = 2;
  std::uint32_t most_threads = kAllThreads;  // then none can be started
  std::size_t max_open_files = 8;
  Strategy strategy = Strategy::automatic;
  std::optional<std::uint64_t> window_bytes = 0;
  std::optional<std::uint64_t> budget_bytes;
  BoardPlace board = BoardPlace::shared;
  std::vector<std::vector<ByteRange>> spans;  // by file; empty: all is wanted
  bool consumer = true;
  bool releases = true;
  bool stays = true;               // until the prefetch is over, not only until the consumer is
  std::uint64_t tensor_bytes = 0;  // at most
  std::chrono::nanoseconds work_per_mebibyte{0};
  std::uint64_t pauses_at = 0;       // 60 s, before that tensor; 0 is never
  std::uint64_t interrupted_at = 0;  // in that look of a waiting consumer; 0 is never
  std::uint64_t killed_at = 0;       // in that step; 0 is never
  // So long a child that was forked meanwhile holds the locks of the dead.
  std::chrono::nanoseconds locks_outlive_by{0};
  std::uint64_t stopped_at = 0;  // in that step; 0 is never
  std::chrono::nanoseconds stopped_for{0};
  bool continues = true;  // after that, or it is killed
  std::uint64_t cancelled_at = 0;
  std::vector<Fault> faults;
  std::vector<std::uint64_t> stalls;  // calls
  // Whether a call may fail, or the file seem to be shorter.
  bool may_fail = false;
  bool doubts = false;  // what it wants
};

struct Scenario {
  explicit Scenario(std::uint64_t seed);

  std::vector<std::uint64_t> sizes_bytes;
  PlanOptions plan;
  SimulatedNodeOptions node;
  BoardState board = BoardState::absent;
  std::uint64_t set_inflight_bytes = 0;
  std::uint64_t rate_limit_bytes_per_s = 0;
  std::vector<RankScenario> ranks;
  std::vector<FileRange> warm;  // resident at the start
  // Ranges about whose residency the kernel lies.
  std::vector<FileRange> lies;
  // Advice may be lost without anyone knowing.
  bool blind = false;
  bool memory_is_short = false;
  // Some ranks read by themselves, or all.
  [[nodiscard]] bool reads() const noexcept { return reads_; }

 private:
  void draw_files(Random& random);
  void draw_node(Random& random);
  [[nodiscard]] RankScenario draw_rank(Random& random, bool faulty);
  void draw_faults(Random& random, RankScenario& rank);
  void draw_wants(Random& random);
  void draw_reading(Random& random);
  void draw_reading_faults(Random& random, RankScenario& rank) const;
  [[nodiscard]] FileRange draw_range(Random& random) const;
  bool large_ = false;
  bool reads_ = false;
};

}  // namespace shardahead::testing
