// bench: visits all cells once per repeat, prepares, measures and records each. It prints nothing
// but tells the caller where it is. One thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "mounts.h"
#include "node.h"
#include "options.h"
#include "recommendation.h"
#include "summary.h"
#include "workload.h"

namespace shardahead::bench {

// All that there is to print.
struct Bench {
  Options options;
  Node node;
  Workload workload;
  std::vector<MountUsed> mounts;
  std::vector<CellResult> results;  // in the order of the matrix
  std::vector<CellSummary> summaries;
  Recommendation recommendation;
  int signal = 0;  // that ended it early; 0: none did

  // Every repeat of every cell was measured.
  [[nodiscard]] bool complete() const;
};

using TellProgress = std::function<void(const std::string& line)>;

// Throws IoException for a path that cannot be opened, UsageError for a folder without files.
Bench run_bench(const Options& options, const TellProgress& progress);

}  // namespace shardahead::bench
