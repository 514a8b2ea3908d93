#include "bench.h"

#include <algorithm>

#include "page_cache.h"
#include "run.h"
#include "units.h"

namespace shardahead::bench {
namespace {

// What one repeat needs; all of it outlives the repeat.
struct Bed {
  const Workload& workload;
  const std::vector<MountUsed>& mounts;
  const RequestCounters& counters;
  FileTable& held;  // open from the first repeat to the last, to ask about residency
};

Repeat failed(std::string reason) {
  Repeat repeat;
  repeat.outcome = RepeatOutcome::failed;
  repeat.reason = std::move(reason);
  return repeat;
}

Repeat failed(const IoError& error) {
  Repeat repeat = failed(describe(error));
  repeat.error_count = 1;
  repeat.errors = {error};
  return repeat;
}

Prepared prepare(CacheState state, const Bed& bed) {
  if (state == CacheState::warm) return make_warm(bed.held, bed.workload, bed.counters);
  return make_cold(bed.held, bed.workload, bed.mounts);
}

// The figures of a run that did what it should, or why it did not.
Repeat judged(const Run& run, CacheState state, const Workload& workload) {
  const Report& report = run.report;
  Repeat repeat;
  if (!report.errors.empty()) {
    repeat = failed(describe(report.errors.front()));
    if (report.error_count > 1) {
      repeat.reason += " and " + std::to_string(report.error_count - 1) + " more";
    }
    repeat.error_count = report.error_count;
    repeat.errors = report.errors;
    return repeat;
  }
  if (report.planned_bytes != workload.measured_bytes ||
      report.settled_bytes() != workload.measured_bytes) {
    return failed("the files changed meanwhile: " + format_bytes(report.settled_bytes()) +
                  " came in, not " + format_bytes(workload.measured_bytes));
  }
  if (state == CacheState::warm && report.resident_bytes != workload.measured_bytes) {
    repeat = failed("only " + format_bytes(report.resident_bytes) + " of " +
                    format_bytes(workload.measured_bytes) +
                    " were still resident: the mount drops pages at open(), or memory is short");
    repeat.outcome = RepeatOutcome::not_warm;
    return repeat;
  }
  repeat.outcome = RepeatOutcome::measured;
  repeat.measured_bytes = workload.measured_bytes;
  repeat.seconds = run.seconds;
  repeat.cpu_seconds = run.cpu_seconds;
  repeat.worker_cpu_seconds = report.cpu_seconds;
  repeat.lost_bytes = report.lost_bytes;
  if (report.read_bytes > 0) repeat.strategy_used = report.strategy_used;
  if (report.read_bytes > 0 && report.strategy_used != to_string(Strategy::pread)) {
    repeat.step_bytes = report.step_bytes;
    repeat.step_source = report.step_source;
  }
  repeat.requests = run.requests;
  return repeat;
}

Repeat measure(const Cell& cell, const Bed& bed) {
  const Prepared prepared = prepare(cell.state, bed);
  if (!prepared.ready) {
    Repeat repeat = failed(prepared.reason);
    repeat.outcome =
        cell.state == CacheState::cold ? RepeatOutcome::not_cold : RepeatOutcome::not_warm;
    repeat.resident_before_bytes = prepared.found.resident_bytes;
    return repeat;
  }
  const Run run = run_once(bed.workload, cell.setting, bed.counters);
  Repeat repeat = judged(run, cell.state, bed.workload);
  repeat.resident_before_bytes = prepared.found.resident_bytes;
  if (repeat.outcome == RepeatOutcome::measured) {
    repeat.resident_after_bytes = resident_in(*run.files, bed.workload).resident_bytes;
  }
  return repeat;
}

Repeat measure_or_fail(const Cell& cell, const Bed& bed) {
  try {
    return measure(cell, bed);
  } catch (const IoException& exception) {
    return failed(exception.error());
  }
}

std::string outcome_text(const Repeat& repeat) {
  if (repeat.outcome != RepeatOutcome::measured) return repeat.reason;
  return format_fixed(repeat.seconds, 3) + " s, " +
         format_rate(static_cast<double>(repeat.measured_bytes) / repeat.seconds);
}

void measure_all(Bench& bench, const TellProgress& progress) {
  const RequestCounters counters(bench.mounts);
  FileTable held(system_file_io(), bench.workload.paths(), default_max_open_files());
  const Bed bed{bench.workload, bench.mounts, counters, held};
  const auto cells = cells_of(bench.options);
  for (const Cell& cell : cells) bench.results.push_back({cell, {}});
  for (std::uint32_t number = 1; number <= bench.options.repeats; ++number) {
    for (const std::size_t index : order_of(cells, number)) {
      if (signal_that_came() != 0) return;
      Repeat repeat = measure_or_fail(cells[index], bed);
      if (signal_that_came() != 0) return;  // it may have been cut short
      repeat.number = number;
      progress("repeat " + std::to_string(number) + " of " + std::to_string(bench.options.repeats) +
               ": " + to_string(cells[index].setting) + ", " + to_string(cells[index].state) +
               ": " + outcome_text(repeat));
      bench.results[index].repeats.push_back(std::move(repeat));
    }
  }
}

}  // namespace

bool Bench::complete() const {
  return signal == 0 && std::all_of(results.begin(), results.end(), [](const CellResult& result) {
           return std::all_of(
               result.repeats.begin(), result.repeats.end(),
               [](const Repeat& repeat) { return repeat.outcome == RepeatOutcome::measured; });
         });
}

Bench run_bench(const Options& options, const TellProgress& progress) {
  Bench bench;
  bench.options = options;
  bench.node = this_node();
  bench.workload = workload_of(system_file_io(), files_of(options.paths), options.limit_bytes);
  if (bench.workload.measured_bytes == 0) {
    throw UsageError("nothing to measure: all files are empty");
  }
  bench.mounts = mounts_of(bench.workload);
  measure_all(bench, progress);
  bench.signal = signal_that_came();
  for (const CellResult& result : bench.results) bench.summaries.push_back(summary_of(result));
  bench.recommendation = recommend(bench.summaries);
  if (bench.signal != 0) {
    bench.recommendation = {Advice::none, std::nullopt, "interrupted before all was measured"};
  }
  return bench;
}

}  // namespace shardahead::bench
