// summary: what the repeats of each cell came to. Only repeats that were measured in the state that
// the cell asks for count; the others keep their reason. Pure values. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "matrix.h"
#include "request_counter.h"

namespace shardahead::bench {

enum class RepeatOutcome { measured, not_cold, not_warm, failed };

const char* to_string(RepeatOutcome outcome) noexcept;

struct Repeat {
  std::uint32_t number = 0;  // from 1
  RepeatOutcome outcome = RepeatOutcome::failed;
  std::string reason;  // why it is not measured
  std::optional<std::uint64_t> resident_before_bytes;

  // Of a measured one only.
  std::uint64_t measured_bytes = 0;
  double seconds = 0;
  double cpu_seconds = 0;         // of the process, user and system
  double worker_cpu_seconds = 0;  // of the core's threads alone
  std::optional<std::uint64_t> resident_after_bytes;
  std::uint64_t lost_bytes = 0;
  // Only where something was read, and the step where it was advised.
  std::optional<std::uint64_t> step_bytes;
  std::string step_source;
  std::string strategy_used;
  std::optional<Requests> requests;

  // Of a failed one.
  std::uint64_t error_count = 0;
  std::vector<IoError> errors;
};

struct CellResult {
  Cell cell;
  std::vector<Repeat> repeats;
};

struct Spread {
  double median = 0;
  double least = 0;
  double most = 0;
};

// Nothing of nothing. Of an even number the median is the mean of the two in the middle.
std::optional<Spread> spread_of(std::vector<double> values);

struct CellSummary {
  Cell cell;
  std::size_t counted = 0;    // repeats that were measured
  std::string strategy_used;  // what `auto` came to, in the last of them; empty: nothing was read
  std::optional<Spread> megabytes_per_second;  // 10^6 bytes
  std::optional<Spread> seconds;
  std::optional<Spread> cpu_seconds_per_gib;
  std::optional<Spread> worker_cpu_seconds_per_gib;
  std::optional<Spread> resident_after_share;  // 0 to 1; nothing as soon as one is unknown
  std::optional<Spread> lost_bytes;
  std::optional<Spread> step_bytes;     // nothing where no step was advised
  std::optional<Spread> read_requests;  // nothing as soon as one is not told
  std::optional<Spread> wire_bytes;
};

CellSummary summary_of(const CellResult& result);

// "fadvise, 4 threads, 16MiB, cold: 2 repeats could not be made cold: ...", one line for each
// reason and state.
std::vector<std::string> remarks_of(const std::vector<CellResult>& results);

}  // namespace shardahead::bench
