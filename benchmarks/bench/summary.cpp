#include "summary.h"

#include <algorithm>

#include "base/byte_range.h"
#include "units.h"

namespace shardahead::bench {
namespace {

const char* as_clause(RepeatOutcome outcome) noexcept {
  switch (outcome) {
    case RepeatOutcome::not_cold: return "could not be made cold";
    case RepeatOutcome::not_warm: return "could not be made warm";
    case RepeatOutcome::failed: return "failed";
    case RepeatOutcome::measured: break;
  }
  return "measured";
}

// The spread of what `value_of` gives for each measured repeat; nothing as soon as one gives
// nothing.
template <typename ValueOf>
std::optional<Spread> spread_over(const CellResult& result, ValueOf value_of) {
  std::vector<double> values;
  for (const Repeat& repeat : result.repeats) {
    if (repeat.outcome != RepeatOutcome::measured) continue;
    const std::optional<double> value = value_of(repeat);
    if (!value) return std::nullopt;
    values.push_back(*value);
  }
  return spread_of(std::move(values));
}

std::optional<double> as_double(std::uint64_t value) { return static_cast<double>(value); }

std::optional<double> ratio(double part, double whole) {
  if (whole <= 0) return std::nullopt;
  return part / whole;
}

// Repeats that were not measured for the same reason, in cells of the same state.
struct Kind {
  RepeatOutcome outcome;
  std::string reason;
  std::vector<const CellResult*> cells;
  std::size_t repeats = 0;
};

void add(std::vector<Kind>& kinds, const CellResult& result, const Repeat& repeat) {
  auto kind = std::find_if(kinds.begin(), kinds.end(), [&](const Kind& known) {
    return known.outcome == repeat.outcome && known.reason == repeat.reason &&
           known.cells.front()->cell.state == result.cell.state;
  });
  if (kind == kinds.end()) {
    kind = kinds.insert(kinds.end(), Kind{repeat.outcome, repeat.reason, {}, 0});
  }
  if (kind->cells.empty() || kind->cells.back() != &result) kind->cells.push_back(&result);
  ++kind->repeats;
}

double gib(const Repeat& repeat) {
  return static_cast<double>(repeat.measured_bytes) / static_cast<double>(kGiB);
}

}  // namespace

const char* to_string(RepeatOutcome outcome) noexcept {
  switch (outcome) {
    case RepeatOutcome::measured: return "measured";
    case RepeatOutcome::not_cold: return "not cold";
    case RepeatOutcome::not_warm: return "not warm";
    case RepeatOutcome::failed: break;
  }
  return "failed";
}

std::optional<Spread> spread_of(std::vector<double> values) {
  if (values.empty()) return std::nullopt;
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return Spread{median, values.front(), values.back()};
}

CellSummary summary_of(const CellResult& result) {
  CellSummary summary;
  summary.cell = result.cell;
  summary.counted = static_cast<std::size_t>(std::count_if(
      result.repeats.begin(), result.repeats.end(),
      [](const Repeat& repeat) { return repeat.outcome == RepeatOutcome::measured; }));
  for (const Repeat& repeat : result.repeats) {
    if (!repeat.strategy_used.empty()) summary.strategy_used = repeat.strategy_used;
  }
  const auto over = [&](auto value_of) { return spread_over(result, value_of); };
  summary.megabytes_per_second = over([](const Repeat& repeat) {
    return ratio(static_cast<double>(repeat.measured_bytes) / 1e6, repeat.seconds);
  });
  summary.seconds = over([](const Repeat& repeat) { return std::optional(repeat.seconds); });
  summary.cpu_seconds_per_gib =
      over([](const Repeat& repeat) { return ratio(repeat.cpu_seconds, gib(repeat)); });
  summary.worker_cpu_seconds_per_gib =
      over([](const Repeat& repeat) { return ratio(repeat.worker_cpu_seconds, gib(repeat)); });
  summary.resident_after_share = over([](const Repeat& repeat) -> std::optional<double> {
    if (!repeat.resident_after_bytes) return std::nullopt;
    return ratio(static_cast<double>(*repeat.resident_after_bytes),
                 static_cast<double>(repeat.measured_bytes));
  });
  summary.lost_bytes = over([](const Repeat& repeat) { return as_double(repeat.lost_bytes); });
  summary.step_bytes = over([](const Repeat& repeat) {
    return repeat.step_bytes ? as_double(*repeat.step_bytes) : std::nullopt;
  });
  summary.read_requests = over([](const Repeat& repeat) {
    return repeat.requests ? as_double(repeat.requests->reads) : std::nullopt;
  });
  summary.wire_bytes = over([](const Repeat& repeat) {
    return repeat.requests ? as_double(repeat.requests->wire_bytes) : std::nullopt;
  });
  return summary;
}

std::vector<std::string> remarks_of(const std::vector<CellResult>& results) {
  std::vector<Kind> kinds;
  for (const CellResult& result : results) {
    for (const Repeat& repeat : result.repeats) {
      if (repeat.outcome != RepeatOutcome::measured) add(kinds, result, repeat);
    }
  }
  std::vector<std::string> remarks;
  remarks.reserve(kinds.size());
  for (const Kind& kind : kinds) {
    const CellResult& first = *kind.cells.front();
    std::string who = std::to_string(kind.cells.size()) + " cells";
    if (kind.cells.size() == 1) who = to_string(first.cell.setting);
    remarks.push_back(who + ", " + to_string(first.cell.state) + ": " +
                      counted(kind.repeats, "repeat") + " " + as_clause(kind.outcome) + ": " +
                      kind.reason);
  }
  return remarks;
}

}  // namespace shardahead::bench
