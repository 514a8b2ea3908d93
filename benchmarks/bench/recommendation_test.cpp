// recommendation: fast enough, then cheap, then few threads, and never from what was not cold.
#include "recommendation.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "base/byte_range.h"

using namespace shardahead;
using namespace shardahead::bench;

TEST_SUITE_BEGIN("bench_recommendation");

namespace {

constexpr double kNoise = 0.01;

CellSummary cell(Strategy strategy, std::uint32_t threads, double megabytes_per_second,
                 double cpu_seconds_per_gib) {
  CellSummary summary;
  summary.cell = {{strategy, threads, 16 * kMiB}, CacheState::cold};
  summary.counted = 3;
  const auto spread = [](double median) {
    return Spread{median, median * (1 - kNoise), median * (1 + kNoise)};
  };
  summary.megabytes_per_second = spread(megabytes_per_second);
  summary.cpu_seconds_per_gib = spread(cpu_seconds_per_gib);
  summary.resident_after_share = Spread{1, 1, 1};
  return summary;
}

Setting chosen(const std::vector<CellSummary>& cells) {
  const Recommendation recommendation = recommend(cells);
  CHECK(recommendation.advice == Advice::setting);
  return recommendation.setting.value_or(Setting{});
}

}  // namespace

TEST_CASE("the fastest, where it is faster than the others vary") {
  CHECK(chosen({cell(Strategy::pread, 8, 300, 0.5), cell(Strategy::fadvise, 1, 200, 0.1)}) ==
        Setting{Strategy::pread, 8, 16 * kMiB});
}

TEST_CASE("among equally fast ones the cheapest, then the fewest threads") {
  const auto costly = cell(Strategy::pread, 1, 300, 0.5);
  const auto cheap = cell(Strategy::fadvise, 8, 292, 0.201);
  const auto cheap_too = cell(Strategy::readahead, 2, 293, 0.204);
  const auto slow = cell(Strategy::fadvise, 1, 290, 0.1);
  std::vector<CellSummary> cells{costly, cheap, cheap_too, slow};
  CHECK(chosen(cells) == Setting{Strategy::readahead, 2, 16 * kMiB});
  std::reverse(cells.begin(), cells.end());
  CHECK(chosen(cells) == Setting{Strategy::readahead, 2, 16 * kMiB});
  CHECK(chosen({costly, cheap, slow}) == Setting{Strategy::fadvise, 8, 16 * kMiB});
}

TEST_CASE("the defaults, where nothing is better than they by more than it varies") {
  const auto defaults = cell(Strategy::automatic, 4, 295, 0.20);
  const auto same = recommend({cell(Strategy::fadvise, 1, 300, 0.20), defaults});
  CHECK(same.advice == Advice::defaults);
  CHECK(same.setting == default_setting());
  CHECK(chosen({cell(Strategy::fadvise, 1, 400, 0.20), defaults}).threads == 1);
  CHECK(chosen({cell(Strategy::fadvise, 1, 300, 0.10), defaults}).threads == 1);
  auto noisy = cell(Strategy::fadvise, 1, 400, 0.20);
  noisy.megabytes_per_second->least = 290;
  CHECK(recommend({noisy, defaults}).advice == Advice::defaults);
}

TEST_CASE("no recommendation from what was not measured cold, or did not stay") {
  auto warm = cell(Strategy::fadvise, 1, 90'000, 0.01);
  warm.cell.state = CacheState::warm;
  CellSummary not_cold;
  not_cold.cell.state = CacheState::cold;
  const auto nothing = recommend({not_cold, warm});
  CHECK(nothing.advice == Advice::none);
  CHECK_FALSE(nothing.setting);
  CHECK(nothing.reason == "no cell could be measured cold");
  CHECK(recommend({warm}).reason == "no cell was to be measured cold");
  CHECK(recommend({}).advice == Advice::none);
  auto gone = cell(Strategy::fadvise, 1, 300, 0.1);
  gone.resident_after_share = Spread{0.5, 0.5, 0.5};
  CHECK(recommend({gone}).reason == "what was read did not stay in the page cache");
  CHECK(chosen({gone, warm, not_cold, cell(Strategy::pread, 2, 100, 0.4)}).threads == 2);
}

TEST_CASE("as settings and as a command") {
  const Setting setting{Strategy::fadvise, 8, 4 * kMiB};
  CHECK(as_environment(setting) ==
        "SHARDAHEAD_STRATEGY=fadvise SHARDAHEAD_THREADS=8 SHARDAHEAD_BLOCK_SIZE=4MiB");
  CHECK(as_command(setting, as_words({"/models/my model", "/b"})) ==
        "shardahead warm --strategy fadvise --threads 8 --block-size 4MiB '/models/my model' /b");
  Options options;
  options.paths = {"/models/my model/1"};
  CHECK(words_of(options) == "'/models/my model/1'");
  options.shown_as = "--all /m";
  CHECK(words_of(options) == "--all /m");
}
