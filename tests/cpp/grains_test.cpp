// grains: how files are cut into pieces whose wants a board can say.
#include "board/grains.h"

#include <doctest/doctest.h>

#include "board/board_memory.h"

using namespace shardahead;

TEST_SUITE_BEGIN("grains");

TEST_CASE("a grain is 64 KiB, or a block where that is less") {
  const auto grain_bytes = [](std::uint64_t block_bytes, std::uint64_t file_bytes) {
    return Grains(Plan({{file_bytes, {}}}, {block_bytes, block_bytes, 0})).bytes();
  };
  CHECK(grain_bytes(16 * kMiB, 64 * kMiB) == 64 * kKiB);
  CHECK(grain_bytes(64 * kKiB, 64 * kMiB) == 64 * kKiB);
  CHECK(grain_bytes(20 * kKiB, 64 * kMiB) == 20 * kKiB);
  CHECK(grain_bytes(kMinBlockBytes, 64 * kMiB) == kMinBlockBytes);
  CHECK(grain_bytes(16 * kMiB, 5) == kMinBlockBytes);
  CHECK(Grains(Plan({}, {})).count() == 0);
}

TEST_CASE("a board of 2 TB takes less than 16 MiB, and more of it makes larger grains") {
  const Plan plan({{2'000'000'000'000, {}}}, {});
  CHECK(Grains(plan).bytes() == 64 * kKiB);
  CHECK(BoardShape(plan).size_bytes() < 16 * kMiB);
  const Plan larger({{2'000'000'000'000'000, {}}}, {.block_bytes = kGiB});
  CHECK(Grains(larger).bytes() > 64 * kKiB);
  CHECK(Grains(larger).count() <= kMostGrains);
  CHECK(BoardShape(larger).size_bytes() < 24 * kMiB);
}

TEST_CASE("each byte of a file lies in one grain, and no grain in two files") {
  const Plan plan({{100 * kKiB, {}}, {0, {}}, {5, {}}, {64 * kKiB, {}}}, {16 * kMiB, 16 * kMiB, 0});
  const Grains grains(plan);
  REQUIRE(grains.bytes() == 64 * kKiB);  // of the largest block
  CHECK(grains.count() == 4);
  const auto under = [&](std::uint32_t file, ByteRange range) {
    const GrainRange found = grains.under(file, range);
    return std::pair(found.begin, found.end);
  };
  CHECK(under(0, {0, 100 * kKiB}) == std::pair<std::uint64_t, std::uint64_t>(0, 2));
  CHECK(under(0, {64 * kKiB - 1, 1}) == std::pair<std::uint64_t, std::uint64_t>(0, 1));
  CHECK(under(0, {64 * kKiB - 1, 2}) == std::pair<std::uint64_t, std::uint64_t>(0, 2));
  CHECK(under(1, {}) == std::pair<std::uint64_t, std::uint64_t>(2, 2));
  CHECK(under(2, {4, 1}) == std::pair<std::uint64_t, std::uint64_t>(2, 3));
  CHECK(under(3, {0, 64 * kKiB}) == std::pair<std::uint64_t, std::uint64_t>(3, 4));
  // Whatever is asked for, nothing behind the file.
  CHECK(under(2, {0, kNoEnd}) == std::pair<std::uint64_t, std::uint64_t>(2, 3));
  CHECK(grains.range_of(3, {3, 4}) == ByteRange{0, 64 * kKiB});
  CHECK(grains.range_of(0, {1, 2}) == ByteRange{64 * kKiB, 64 * kKiB});
}

TEST_SUITE_END();
