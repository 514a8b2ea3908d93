// simulation: the rules hold for every seed; a seed gives the same trace whenever it is run; and a
// bug that is planted is found. The program shardahead_simulate runs any other number of seeds.
#include "simulation.h"

#include <doctest/doctest.h>

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("simulation");

namespace {

constexpr std::uint64_t kSeeds = SHARDAHEAD_SIMULATION_SEEDS;
// A canary is found in the first of them, or the simulation sees too little.
constexpr std::uint64_t kCanarySeeds = 200;

std::string rules_broken(const SimulationResult& result) {
  std::string text;
  for (const std::string& violation : result.violations) text.append(violation).append("\n");
  return text;
}

}  // namespace

TEST_CASE("whatever goes wrong, all rules hold") {
  SimulationResult all;
  std::uint64_t reading_seeds = 0;  // with ranks that read by themselves
  std::uint64_t met_seeds = 0;      // in which all of these shared what they read
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const SimulationResult result = simulate({.seed = seed});
    INFO("shardahead_simulate --seed " << seed << " --trace");
    REQUIRE(rules_broken(result) == std::string());
    reading_seeds += result.readers > 0 ? 1U : 0U;
    met_seeds += result.all_met ? 1U : 0U;
    all.read_alone_bytes += result.read_alone_bytes;
    all.deaths += result.deaths;
    all.stops += result.stops;
    all.evicted_bytes += result.evicted_bytes;
    all.dropped_bytes += result.dropped_bytes;
    all.failed_bytes += result.failed_bytes;
    all.virtual_seconds += result.virtual_seconds;
  }
  // All of it was met.
  CHECK(reading_seeds > kSeeds / 5);
  CHECK(met_seeds > kSeeds / 100);
  CHECK(all.read_alone_bytes > kSeeds * 100 * kKiB);
  CHECK(all.deaths > kSeeds / 100);
  CHECK(all.stops > kSeeds / 100);
  CHECK(all.evicted_bytes > 0);
  CHECK(all.dropped_bytes > 0);
  CHECK(all.failed_bytes > 0);
  CHECK(all.virtual_seconds > static_cast<double>(kSeeds));
}

TEST_CASE("a seed gives the same trace again") {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    CAPTURE(seed);
    const SimulationResult once = simulate({.seed = seed, .keeps_trace = true});
    const SimulationResult again = simulate({.seed = seed, .keeps_trace = true});
    CHECK(once.trace.size() > 100);
    CHECK((once.trace == again.trace));  // without printing either
    CHECK(once.trace_hash == again.trace_hash);
    CHECK(simulate({.seed = seed}).trace_hash == once.trace_hash);
    CHECK(simulate({.seed = seed + 1}).trace_hash != once.trace_hash);
  }
}

TEST_CASE("a bug that is planted is found, and found again by its seed") {
  for (std::uint32_t i = 1; i < kBugs; ++i) {
    const Bug bug = static_cast<Bug>(i);
    CAPTURE(std::string(to_string(bug)));
    std::uint64_t seed = 1;
    SimulationResult found = simulate({.seed = seed, .bug = bug});
    while (found.violations.empty() && seed < kCanarySeeds) {
      found = simulate({.seed = ++seed, .bug = bug});
    }
    CAPTURE(seed);
    REQUIRE_FALSE(found.violations.empty());
    CHECK(simulate({.seed = seed, .bug = bug}).violations == found.violations);
  }
}

TEST_SUITE_END();
