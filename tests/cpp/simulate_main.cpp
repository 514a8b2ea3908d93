// shardahead_simulate: runs the simulation of any number of seeds, or shows the trace of one. No
// part of the product.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "simulation.h"

using namespace shardahead;
using namespace shardahead::testing;

namespace {

constexpr const char* kUsage =
    "usage: shardahead_simulate [--seeds N] [--first-seed N] [--bug NAME]\n"
    "       shardahead_simulate --seed N [--trace] [--bug NAME]\n"
    "bugs:";

struct Arguments {
  std::uint64_t seeds = 10'000;
  std::uint64_t first_seed = 1;
  bool trace = false;
  Bug bug = Bug::none;
};

std::optional<Bug> bug_from(std::string_view name) {
  for (std::uint32_t i = 0; i < kBugs; ++i) {
    if (name == to_string(static_cast<Bug>(i))) return static_cast<Bug>(i);
  }
  return std::nullopt;
}

std::optional<Arguments> parse(int count, char** values) {
  Arguments arguments;
  for (int i = 1; i < count; ++i) {
    const std::string_view name = values[i];
    if (name == "--trace") {
      arguments.trace = true;
      continue;
    }
    if (++i == count) return std::nullopt;
    if (name == "--bug") {
      const auto bug = bug_from(values[i]);
      if (!bug) return std::nullopt;
      arguments.bug = *bug;
      continue;
    }
    char* end = nullptr;
    const std::uint64_t number = std::strtoull(values[i], &end, 10);
    if (end == values[i] || *end != '\0') return std::nullopt;
    if (name == "--seeds") {
      arguments.seeds = number;
    } else if (name == "--first-seed") {
      arguments.first_seed = number;
    } else if (name == "--seed") {
      arguments.first_seed = number;
      arguments.seeds = 1;
    } else {
      return std::nullopt;
    }
  }
  return arguments;
}

struct Totals {
  std::uint64_t failed = 0;
  std::uint64_t events = 0;
  std::uint64_t ranks = 0;
  std::uint64_t reading = 0;  // seeds with ranks that read by themselves
  std::uint64_t readers = 0;  // ranks
  std::uint64_t met = 0;      // seeds in which all met
  std::uint64_t read_alone_bytes = 0;
  std::uint64_t deaths = 0;
  std::uint64_t stops = 0;
  std::uint64_t read_bytes = 0;
  std::uint64_t evicted_bytes = 0;
  std::uint64_t dropped_bytes = 0;
  std::uint64_t failed_bytes = 0;
  double virtual_seconds = 0;
  double longest_wait_seconds = 0;
  double longest_for_stopped_seconds = 0;
};

void add(Totals& totals, const SimulationResult& result) {
  totals.failed += result.violations.empty() ? 0U : 1U;
  totals.events += result.events;
  totals.ranks += result.ranks;
  totals.reading += result.readers > 0 ? 1U : 0U;
  totals.readers += result.readers;
  totals.met += result.all_met ? 1U : 0U;
  totals.read_alone_bytes += result.read_alone_bytes;
  totals.deaths += result.deaths;
  totals.stops += result.stops;
  totals.read_bytes += result.read_bytes;
  totals.evicted_bytes += result.evicted_bytes;
  totals.dropped_bytes += result.dropped_bytes;
  totals.failed_bytes += result.failed_bytes;
  totals.virtual_seconds += result.virtual_seconds;
  totals.longest_wait_seconds = std::max(totals.longest_wait_seconds, result.longest_wait_seconds);
  totals.longest_for_stopped_seconds =
      std::max(totals.longest_for_stopped_seconds, result.longest_for_stopped_seconds);
}

void print(const Totals& totals, std::uint64_t seeds, double wall_seconds) {
  const auto number = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  std::printf(
      "%llu seeds, %llu failed, %llu ranks, %llu of them killed, %llu stopped, %llu events\n",
      number(seeds), number(totals.failed), number(totals.ranks), number(totals.deaths),
      number(totals.stops), number(totals.events));
  std::printf(
      "%.0f virtual s in %.1f s; the longest wait of a consumer %.1f s, for a stopped rank %.1f "
      "s\n",
      totals.virtual_seconds, wall_seconds, totals.longest_wait_seconds,
      totals.longest_for_stopped_seconds);
  std::printf("mode pread: %llu seeds, %llu ranks, in %llu seeds all met, %llu MiB compared\n",
              number(totals.reading), number(totals.readers), number(totals.met),
              number(totals.read_alone_bytes / kMiB));
  std::printf("MiB: %llu read, %llu evicted, %llu dropped behind, %llu reported as failed\n",
              number(totals.read_bytes / kMiB), number(totals.evicted_bytes / kMiB),
              number(totals.dropped_bytes / kMiB), number(totals.failed_bytes / kMiB));
}

}  // namespace

int main(int argc, char** argv) {
  const auto arguments = parse(argc, argv);
  if (!arguments) {
    std::fputs(kUsage, stderr);
    for (std::uint32_t i = 0; i < kBugs; ++i) {
      std::fprintf(stderr, " %s", to_string(static_cast<Bug>(i)));
    }
    std::fputs("\n", stderr);
    return 2;
  }
  const auto began = std::chrono::steady_clock::now();
  Totals totals;
  for (std::uint64_t i = 0; i < arguments->seeds; ++i) {
    const std::uint64_t seed = arguments->first_seed + i;
    const SimulationResult result =
        simulate({.seed = seed, .keeps_trace = arguments->trace, .bug = arguments->bug});
    std::fwrite(result.trace.data(), 1, result.trace.size(), stdout);
    for (const std::string& violation : result.violations) {
      std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed), violation.c_str());
    }
    add(totals, result);
  }
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - began;
  print(totals, arguments->seeds, wall.count());
  return totals.failed == 0 ? 0 : 1;
}
