// report: the figures of one prefetch, running (Progress) and finished (Report). Plain values that
// the engine fills; text and JSON are made from them elsewhere. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/limit.h"

namespace shardahead {

struct Progress {
  std::uint64_t planned_bytes = 0;  // what this participant wants, or its fixed share of that
  std::uint64_t done_bytes = 0;     // resident, read, shared or failed: no longer waited for
  std::uint64_t node_read_bytes = 0;
  double seconds = 0;
  std::uint64_t read_bytes = 0;      // brought in by this participant
  std::uint64_t consumed_bytes = 0;  // what its consumer has passed
  std::uint64_t claimed_bytes = 0;   // in flight: of blocks that it has taken and not settled
  std::uint64_t window_bytes = 0;    // in force at present; 0: no limit
  std::uint64_t inflight_bytes = 0;  // what the node may have in flight at present; 0: no cap
  std::uint64_t failed_bytes = 0;
  Limit limited_by = Limit::unknown;
};

struct Report {
  std::uint64_t planned_bytes = 0;
  std::uint64_t resident_bytes = 0;  // were in the page cache already
  std::uint64_t read_bytes = 0;      // brought in
  std::uint64_t lost_bytes = 0;      // part of read_bytes: advised, not arrived, then read
  std::uint64_t shared_bytes = 0;    // brought in by others on this node
  // Brought in by all of this node, as far as that is known, since this participant came. May count
  // what was brought in twice, and what only others want.
  std::uint64_t node_read_bytes = 0;
  std::uint64_t failed_bytes = 0;
  std::uint64_t left_out_bytes = 0;  // cancelled before their turn, or beyond the window
  // Brought in once more for the consumer of this process: evicted before it had consumed them.
  std::uint64_t refetched_bytes = 0;
  std::uint64_t dropped_bytes = 0;  // behind the consumers, by this participant
  std::uint64_t window_bytes = 0;   // in force at present; 0: no limit
  std::string window_source;        // "none", "given" or "memory"
  double seconds = 0;
  double cpu_seconds = 0;  // of the worker threads
  std::uint32_t threads = 0;
  std::uint64_t inflight_bytes = 0;  // what the node might have in flight at the end; 0: no cap
  // Of the node where it shares a board, else of this process; 0: no limit.
  std::uint64_t rate_limit_bytes_per_s = 0;
  Limit limited_by = Limit::unknown;  // the node where it shares a board, else this process
  std::string strategy;               // what was asked for
  std::string strategy_used;  // what it came to: "populate", "fadvise", "readahead", "pread"
  std::uint64_t step_bytes = 0;
  std::string step_source;  // "measured", "assumed" or "lowered"
  std::string keeping;      // "unknown", "keeps", "emptied_by_open" or "uncached"
  bool cancelled = false;
  bool done = false;
  std::uint64_t error_count = 0;
  std::vector<IoError> errors;  // the first kMaxErrors of them

  static constexpr std::size_t kMaxErrors = 64;

  // No longer waited for, whatever became of them.
  [[nodiscard]] std::uint64_t settled_bytes() const {
    return resident_bytes + read_bytes + shared_bytes + failed_bytes;
  }
};

}  // namespace shardahead
