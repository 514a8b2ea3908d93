// window: how far the prefetch may be ahead of the consumers, and what may stay behind them. Pure:
// it is told positions, budgets and times, and has no clock of its own. One thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>

namespace shardahead {

// Where a consumer is, as places in consumption order (Plan::position).
struct ConsumerPosition {
  std::uint64_t consumed_bytes = 0;  // everything before has been handed out
  std::uint64_t needed_bytes = 0;    // the end of what is wanted next
  std::uint64_t released_bytes = 0;  // everything before is neither wanted nor held any more
  friend bool operator==(const ConsumerPosition&, const ConsumerPosition&) = default;
};

// What two consumers together allow: the slower one counts.
ConsumerPosition slower_of(const ConsumerPosition& one, const ConsumerPosition& other) noexcept;

// One consumer of another process: who does not move is not waited for until it moves again. It may
// have been stopped, or wait itself for those who wait for it.
class ConsumerWatch {
 public:
  using Time = std::chrono::steady_clock::time_point;
  // Less than the patience of a consumer, which else would read by itself (patience.h).
  static constexpr auto kPatience = std::chrono::milliseconds(2500);

  bool moves(const ConsumerPosition& position, Time now) noexcept;

 private:
  std::optional<ConsumerPosition> seen_;
  Time since_;
};

enum class WindowSource { none, given, memory };

const char* to_string(WindowSource source) noexcept;

struct Window {
  std::uint64_t ahead_bytes = 0;  // 0: no limit
  // What lies behind all consumers by more than this is dropped; without it nothing is.
  std::optional<std::uint64_t> keep_bytes;
  WindowSource source = WindowSource::none;
};

// What page cache may fill, now; nothing where it is not known. Called by any thread.
using BudgetBytes = std::function<std::optional<std::uint64_t>()>;

// Whom the prefetch follows: no one; a consumer that lets go of what it has passed; one that may
// hold it, a mapping of a whole file say, so that it cannot be dropped.
enum class Follows { no_one, releasing_consumer, holding_consumer };

// The window in force, from what was given, what memory leaves, and what was evicted too early.
class WindowControl {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // `given_bytes`: 0 is no limit, nothing lets memory decide. `wanted_bytes`: of the whole load.
  WindowControl(std::optional<std::uint64_t> given_bytes, std::uint64_t wanted_bytes,
                Follows follows) noexcept;

  // At every look at the budget; nothing where it is not known.
  void set_budget(std::optional<std::uint64_t> budget_bytes, Time now) noexcept;
  // So much was evicted before it was consumed: memory is shorter than the budget says.
  void add_evicted(std::uint64_t bytes, Time now) noexcept;
  [[nodiscard]] Window window() const noexcept;

 private:
  [[nodiscard]] bool is_short() const noexcept;

  std::optional<std::uint64_t> given_bytes_;
  std::uint64_t wanted_bytes_;
  Follows follows_;
  std::optional<std::uint64_t> budget_bytes_;
  std::uint64_t evicted_bytes_ = 0;  // since the last halving
  std::uint32_t halvings_ = 0;
  Time changed_;  // halvings_
};

}  // namespace shardahead
