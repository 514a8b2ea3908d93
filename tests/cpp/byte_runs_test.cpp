// byte_runs: parts of tensors against every byte of them, one by one.
#include "plan/byte_runs.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

using namespace shardahead;

TEST_SUITE_BEGIN("byte_runs");

namespace {

using Offsets = std::vector<std::uint64_t>;

// Of each byte of the part, in order.
Offsets bytes_of(const ByteRuns& runs, const std::vector<RunLevel>& levels, std::size_t level = 0,
                 std::uint64_t base = 0) {
  Offsets found;
  if (level == levels.size()) {
    for (std::uint64_t i = 0; i < runs.run_bytes(); ++i) found.push_back(base + i);
    return found;
  }
  for (std::uint64_t i = 0; i < levels[level].count; ++i) {
    const auto inner = bytes_of(runs, levels, level + 1, base + i * levels[level].stride_bytes);
    found.insert(found.end(), inner.begin(), inner.end());
  }
  return found;
}

Offsets bytes_of(const ByteRuns& runs) { return bytes_of(runs, runs.levels()); }

Offsets bytes_of(const std::vector<ByteRange>& ranges) {
  Offsets found;
  for (const ByteRange& range : ranges) {
    for (std::uint64_t at = range.offset; at < range.end(); ++at) found.push_back(at);
  }
  return found;
}

std::uint64_t below(std::mt19937_64& random, std::uint64_t end) { return random() % end; }

// Of a tensor of up to four dimensions.
ByteRuns any_runs(std::mt19937_64& random) {
  std::vector<RunLevel> levels;
  const std::uint64_t run_bytes = 1 + below(random, 9);
  std::uint64_t within = run_bytes;
  for (std::uint64_t i = below(random, 4); i > 0; --i) {
    const RunLevel level{1 + below(random, 4), within + below(random, 3) * below(random, 20)};
    levels.insert(levels.begin(), level);
    within = level.count * level.stride_bytes;
  }
  return {run_bytes, levels};
}

}  // namespace

TEST_CASE("one run") {
  const ByteRuns runs(10);
  CHECK(runs.packed_bytes() == 10);
  CHECK(runs.extent_bytes() == 10);
  CHECK(runs.ranges() == std::vector<ByteRange>{{0, 10}});
  CHECK(ByteRuns(0).ranges().empty());
  CHECK(ByteRuns(0).extent_bytes() == 0);
  CHECK_FALSE(RunReads(ByteRuns(0), {0, 10}).next(0, 10));
}

TEST_CASE("columns of a matrix: as small as it has dimensions, however many runs") {
  const ByteRuns runs(2, {{1'000'000'000, 16384}});
  CHECK(runs.packed_bytes() == 2'000'000'000);
  CHECK(runs.extent_bytes() == 999'999'999ULL * 16384 + 2);
  CHECK(runs.offset_of(123'456'789) == 123'456'789ULL * 16384);
  CHECK(runs.joined(16382) == ByteRuns(runs.extent_bytes(), {}));
  CHECK(runs.joined(16381) == runs);
}

TEST_CASE("what is no part of a tensor") {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
  using Levels = std::vector<RunLevel>;
  CHECK_THROWS_AS(ByteRuns(0, Levels{}), std::invalid_argument);
  CHECK_THROWS_AS(ByteRuns(kMost, Levels{}), std::invalid_argument);
  CHECK_THROWS_AS(ByteRuns(4, Levels{{0, 8}}), std::invalid_argument);
  CHECK_THROWS_AS(ByteRuns(4, Levels{{2, 3}}), std::invalid_argument);
  CHECK_THROWS_AS(ByteRuns(4, Levels{{2, 15}, {2, 8}}), std::invalid_argument);
  CHECK_THROWS_AS(ByteRuns(4, Levels{{kMost, 8}}), std::invalid_argument);
  CHECK_THROWS_AS(ByteRuns(4, Levels{{2, kMost}}), std::invalid_argument);
}

TEST_CASE("any part: its bytes, its runs, its first and last byte") {
  std::mt19937_64 random(7);
  for (int i = 0; i < 2000; ++i) {
    const ByteRuns runs = any_runs(random);
    const Offsets bytes = bytes_of(runs);
    REQUIRE(runs.packed_bytes() == bytes.size());
    REQUIRE(runs.extent_bytes() == bytes.back() + 1);
    REQUIRE(bytes_of(runs.ranges()) == bytes);
    const std::uint64_t run = below(random, bytes.size() / runs.run_bytes());
    REQUIRE(runs.offset_of(run) == bytes[run * runs.run_bytes()]);
  }
}

TEST_CASE("joined, no gap that is left is short, and none that was long is in it") {
  std::mt19937_64 random(8);
  for (int i = 0; i < 2000; ++i) {
    const ByteRuns runs = any_runs(random);
    const std::uint64_t max_gap = below(random, 30);
    Offsets expected;
    for (const std::uint64_t at : bytes_of(runs)) {
      const std::uint64_t from = expected.empty() ? at : expected.back() + 1;
      if (at - from <= max_gap) {
        for (std::uint64_t gap = from; gap < at; ++gap) expected.push_back(gap);
      }
      expected.push_back(at);
    }
    REQUIRE(bytes_of(runs.joined(max_gap).ranges()) == expected);
  }
}

TEST_CASE("reads bring each packed byte once, over short gaps, and are as short as asked for") {
  std::mt19937_64 random(9);
  for (int i = 0; i < 2000; ++i) {
    const ByteRuns runs = any_runs(random);
    const Offsets bytes = bytes_of(runs);
    const std::uint64_t begin = below(random, bytes.size() + 1);
    const ByteRange packed{begin, below(random, bytes.size() - begin + 2)};
    const std::uint64_t max_gap = below(random, 30);
    const std::uint64_t max_bytes = 1 + below(random, 60);
    std::vector<std::byte> file(runs.extent_bytes());
    for (std::size_t at = 0; at < file.size(); ++at) file[at] = static_cast<std::byte>(at * 7);
    std::uint64_t done = packed.offset;
    RunReads reads(runs, packed);
    while (const auto read = reads.next(max_gap, max_bytes)) {
      REQUIRE(read->packed.offset == done);
      REQUIRE(read->range.length <= max_bytes);
      REQUIRE(read->range.offset == bytes[done]);
      REQUIRE(read->range.end() == bytes[read->packed.end() - 1] + 1);
      REQUIRE(read->has_gaps() == (read->range.length > read->packed.length));
      std::vector<std::byte> landed(read->packed.length);
      copy_runs(runs, *read, file.data() + read->range.offset, landed.data());
      for (std::size_t at = 0; at < landed.size(); ++at) {
        REQUIRE(landed[at] == file[bytes[done + at]]);
        if (at > 0) REQUIRE(bytes[done + at] - bytes[done + at - 1] - 1 <= max_gap);
      }
      done = read->packed.end();
      // It ends where the next run is far, or would be too long.
      if (done < std::min<std::uint64_t>(packed.end(), bytes.size()) &&
          read->range.length < max_bytes) {
        const bool far = bytes[done] - read->range.end() > max_gap;
        const std::uint64_t left = std::min(runs.run_bytes(), packed.end() - done);
        REQUIRE((far || bytes[done] + left - read->range.offset > max_bytes));
      }
    }
    REQUIRE(done == std::min<std::uint64_t>(packed.end(), bytes.size()));
  }
}

TEST_CASE("a share of the work: many runs where gaps are read through, few where they are far") {
  const ByteRuns columns(2 * kKiB, {{4096, 16 * kKiB}});
  CHECK(columns.share_bytes(4 * kMiB, 256 * kKiB) == 4 * kMiB / 8);
  CHECK(columns.share_bytes(4 * kMiB, 8 * kKiB) == 409 * 2 * kKiB);
  const ByteRuns far(128 * kKiB, {{64, 8 * kMiB}});
  CHECK(far.share_bytes(4 * kMiB, 256 * kKiB) == 10 * 128 * kKiB);
  CHECK(far.share_bytes(1, 4 * kMiB) == 1);
  CHECK(ByteRuns(2 * kKiB, {{2, kGiB}}).share_bytes(kMiB, 4 * kMiB) == 2 * kKiB);
  CHECK(ByteRuns(kGiB, {{2, 2 * kGiB}}).share_bytes(4 * kMiB, kMiB) == 4 * kMiB);
  CHECK(ByteRuns(kGiB).share_bytes(4 * kMiB, kMiB) == 4 * kMiB);
}

TEST_SUITE_END();
