// wanted_sums: where so many wanted bytes lie ahead of a place, or behind it.
#include "plan/wanted_sums.h"

#include <doctest/doctest.h>

#include "simulated_random.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("wanted_sums");

namespace {

constexpr std::uint64_t kBlock = kMinBlockBytes;

Plan plan_of(std::vector<PlannedFile> files) { return Plan(std::move(files), {kBlock, kBlock, 0}); }

// A quarter of each block of one file.
Plan quarters(std::uint64_t blocks) {
  std::vector<ByteRange> spans;
  for (std::uint64_t block = 0; block < blocks; ++block) {
    spans.push_back({block * kBlock + kBlock / 2, kBlock / 4});
  }
  return plan_of({{blocks * kBlock, std::move(spans)}});
}

}  // namespace

TEST_CASE("where everything is wanted a position counts wanted bytes") {
  const Plan plan = plan_of({{100 * kBlock, {}}});
  const WantedSums sums(plan);
  CHECK(sums.window_end(0, {}) == kNoEnd);
  CHECK(sums.window_end(100, {}) == 100);
  CHECK(sums.window_end(100, {1, 0, 0}) == 101);
  // It reaches what is needed next, and no further.
  CHECK(sums.window_end(100, {0, 500, 0}) == 500);
  CHECK(sums.window_end(100, {450, 500, 0}) == 550);
  // Very large positions and windows do not wrap around.
  CHECK(sums.window_end(kNoEnd, {100, 0, 0}) == kNoEnd);
  CHECK(sums.window_end(100, {kNoEnd, 0, 0}) == kNoEnd);
  CHECK(sums.window_end(100, {kNoEnd, kNoEnd, kNoEnd}) == kNoEnd);
  CHECK(sums.behind(500, 100) == 400);
  CHECK(sums.behind(50, 100) == 0);
  CHECK(sums.of(3) == kBlock);
  CHECK(sums.all() == 100 * kBlock);
}

TEST_CASE("where a quarter is wanted a window reaches four times as far") {
  const Plan plan = quarters(100);
  const WantedSums sums(plan);
  CHECK(sums.all() == 25 * kBlock);
  CHECK(sums.window_end(kBlock, {}) == 4 * kBlock);
  CHECK(sums.window_end(kBlock + 1, {}) == 5 * kBlock);
  CHECK(sums.window_end(kBlock, {8 * kBlock, 0, 0}) == 12 * kBlock);
  CHECK(sums.window_end(kBlock, {0, 7 * kBlock, 0}) == 7 * kBlock);
  CHECK(sums.window_end(25 * kBlock, {}) == kNoEnd);
  CHECK(sums.window_end(kNoEnd, {}) == kNoEnd);
  CHECK(sums.behind(12 * kBlock, kBlock) == 8 * kBlock);
  CHECK(sums.behind(3 * kBlock, kBlock) == 0);
}

TEST_CASE("what is said to be wanted later holds, and no more of a block than it has") {
  const Plan plan = quarters(4);
  WantedSums sums(plan);
  sums.sum_up([](std::uint32_t block) { return block == 1 ? kNoEnd : 0; });
  CHECK(sums.all() == kBlock);
  CHECK(sums.of(0) == 0);
  CHECK(sums.of(1) == kBlock);
  CHECK(sums.window_end(kBlock, {}) == 2 * kBlock);
  CHECK(sums.window_end(kBlock + 1, {}) == kNoEnd);
  sums.sum_up([](std::uint32_t) { return kBlock; });
  CHECK(sums.window_end(100, {1, 0, 0}) == 101);
}

TEST_CASE("of a plan in which nothing is wanted a window is never full") {
  for (const std::uint64_t blocks : {std::uint64_t{0}, std::uint64_t{5}}) {
    const Plan plan = plan_of({{blocks * kBlock, std::vector<ByteRange>{}}});
    const WantedSums sums(plan);
    CHECK(sums.window_end(10, {}) >= plan.total_bytes());
    CHECK(sums.behind(10, 5) <= 10);
    CHECK(sums.all() == 0);
  }
}

TEST_CASE("no window holds more wanted bytes than it may, to a block, nor ever goes back") {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    std::vector<PlannedFile> files;
    for (std::uint64_t file = random.between(1, 3); file > 0; --file) {
      files.push_back({random.below(40 * kBlock), std::vector<ByteRange>{}});
      for (std::uint64_t span = random.below(8); span > 0; --span) {
        files.back().spans->push_back({random.below(40 * kBlock), random.below(4 * kBlock)});
      }
    }
    const Plan plan(std::move(files), {4 * kBlock, kBlock, 2});
    const WantedSums sums(plan);
    const auto wanted_in = [&](std::uint64_t from, std::uint64_t to) {
      std::uint64_t bytes = 0;
      for (const auto& [file, range] : plan.files_under({from, to - std::min(to, from)})) {
        bytes += plan.wanted_bytes({file, range});
      }
      return bytes;
    };
    const std::uint64_t window_bytes = random.between(1, 20 * kBlock);
    std::uint64_t last = 0;
    for (std::uint64_t at = 0; at <= plan.total_bytes(); at += random.between(1, 2 * kBlock)) {
      const std::uint64_t end = sums.window_end(window_bytes, {at, 0, 0});
      REQUIRE(end >= last);
      last = end;
      for (const Block& block : plan.blocks()) {
        if (plan.position(block) >= end) break;
        REQUIRE((plan.position(block) < at || wanted_in(at, plan.position(block)) < window_bytes));
      }
      const std::uint64_t kept_from = sums.behind(at, window_bytes);
      REQUIRE(kept_from <= at);
      REQUIRE((kept_from == 0 || wanted_in(kept_from, at) >= window_bytes));
    }
  }
}

TEST_SUITE_END();
