// byte_range against a bitmap of the same bytes.
#include "base/byte_range.h"

#include <doctest/doctest.h>

#include <limits>
#include <random>

using namespace shardahead;

TEST_SUITE_BEGIN("byte_range");

namespace {

constexpr std::uint64_t kUniverse = 200;
using Bitmap = std::vector<bool>;

Bitmap bitmap_of(const std::vector<ByteRange>& ranges) {
  Bitmap bits(kUniverse);
  for (const ByteRange& range : ranges) {
    for (std::uint64_t at = range.offset; at < range.end(); ++at) bits[at] = true;
  }
  return bits;
}

ByteRange random_range(std::mt19937_64& random) {
  const std::uint64_t offset = random() % kUniverse;
  return {offset, random() % std::min<std::uint64_t>(kUniverse - offset + 1, 30)};
}

std::vector<ByteRange> random_ranges(std::mt19937_64& random) {
  std::vector<ByteRange> ranges(random() % 12);
  for (ByteRange& range : ranges) range = random_range(random);
  return ranges;
}

bool sorted_and_apart(const std::vector<ByteRange>& ranges) {
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    if (ranges[i].empty()) return false;
    if (i > 0 && ranges[i].offset <= ranges[i - 1].end()) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("merged ranges cover the same bytes, sorted and apart") {
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    const auto ranges = random_ranges(random);
    const auto merged = merge_ranges(ranges);
    REQUIRE(sorted_and_apart(merged));
    REQUIRE(bitmap_of(merged) == bitmap_of(ranges));
  }
}

TEST_CASE("the intersection with a range is the bytes of both, without empty parts") {
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    const auto merged = merge_ranges(random_ranges(random));
    const ByteRange within = random_range(random);
    const auto parts = intersect(merged, within);
    REQUIRE(sorted_and_apart(parts));
    const Bitmap left = bitmap_of(merged);
    const Bitmap right = bitmap_of({within});
    const Bitmap both = bitmap_of(parts);
    for (std::uint64_t at = 0; at < kUniverse; ++at) REQUIRE(both[at] == (left[at] && right[at]));
  }
}

TEST_CASE("two ranges that only adjoin have nothing in common") {
  CHECK(intersect(ByteRange{0, 10}, ByteRange{10, 5}).empty());
  CHECK(intersect(ByteRange{10, 5}, ByteRange{0, 10}).empty());
  CHECK(intersect(ByteRange{0, 10}, ByteRange{4, 3}) == ByteRange{4, 3});
}

TEST_CASE("growing to units covers the range with the fewest units, within the limit") {
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    const ByteRange range = random_range(random);
    const std::uint64_t unit = 1 + random() % 16;
    const std::uint64_t limit = range.end() + random() % 20;
    const ByteRange grown = grow_to_units(range, unit, limit);
    if (range.empty()) {
      REQUIRE(grown.empty());
      continue;
    }
    REQUIRE(grown.offset % unit == 0);
    REQUIRE((grown.end() % unit == 0 || grown.end() == limit));
    REQUIRE(intersect(grown, range) == range);
    REQUIRE(range.offset - grown.offset < unit);
    REQUIRE(grown.end() - range.end() < unit);
  }
}

TEST_CASE("steps tile a range in order, each as long as allowed") {
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    const ByteRange range = random_range(random);
    const std::uint64_t step_bytes = 1 + random() % 40;
    std::uint64_t at = range.offset;
    const bool finished = for_each_step(range, step_bytes, [&](ByteRange step) {
      REQUIRE(step.offset == at);
      REQUIRE((step.length == step_bytes || step.end() == range.end()));
      at = step.end();
      return true;
    });
    REQUIRE(finished);
    REQUIRE(at == range.end());
  }
}

TEST_CASE("a range that would end beyond 64 bits ends there") {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
  CHECK(ByteRange{kMost - 1, 5}.end() == kMost);
  CHECK(intersect(ByteRange{5, kMost}, {0, 10}) == ByteRange{5, 5});
  CHECK(intersect(ByteRange{kMost, 2}, {0, 10}).empty());
  CHECK(merge_ranges({{3, kMost}, {1, 1}, {7, 2}}) ==
        std::vector<ByteRange>{{1, 1}, {3, kMost - 3}});
}

TEST_CASE("steps stop when told to") {
  int visited = 0;
  CHECK_FALSE(for_each_step({0, 100}, 10, [&](ByteRange) { return ++visited < 3; }));
  CHECK(visited == 3);
}

TEST_SUITE_END();
