// board: participants that want different parts of the same blocks.
#include <doctest/doctest.h>

#include "board_fixture.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("board_wants");

TEST_CASE("of a block that several want in part all that they want is fetched, and no more") {
  const TemporaryFolder folder;
  constexpr PlanOptions kOptions{1 * kMiB, 1 * kMiB, 0};
  const auto plan_of_parts = [&](std::vector<ByteRange> spans) {
    return std::make_shared<const Plan>(std::vector<PlannedFile>{{2 * kMiB, std::move(spans)}},
                                        kOptions);
  };
  const auto left = plan_of_parts({{0, 256 * kKiB}, {1 * kMiB, 100}});
  const auto right = plan_of_parts({{600 * kKiB, 40 * kKiB}});
  const auto a = join(folder, left);
  const auto b = join(folder, right);
  const auto first = a->take(kNoLimit);
  const auto second = a->take(kNoLimit);
  CHECK(a->ranges(first.value()) ==
        std::vector<ByteRange>{{0, 256 * kKiB}, {576 * kKiB, 64 * kKiB}});
  CHECK(a->ranges(second.value()) == std::vector<ByteRange>{{1 * kMiB, 100}});
  CHECK_FALSE(b->take(kNoLimit));  // it does not want the second, and the first is taken
  a->settle(*first, Outcome::done, 0);
  CHECK(b->settled(kNoLimit));
  CHECK(b->shared().done_bytes == 40 * kKiB);
}

TEST_CASE("what the dead wanted of a block is fetched, too, and what comes late is asked again") {
  const TemporaryFolder folder;
  const auto plan = [](ByteRange span) {
    return std::make_shared<const Plan>(std::vector<PlannedFile>{{1 * kMiB, std::vector{span}}},
                                        PlanOptions{1 * kMiB, 1 * kMiB, 0});
  };
  const auto board = join(folder, plan({0, 64 * kKiB}));
  kill_and_wait(child_that_waits([&] {
    static auto own = join(folder, plan({128 * kKiB, 64 * kKiB}));
    own->take(kNoLimit);
  }));
  board->recover(false);
  const auto claim = board->take(kNoLimit);
  REQUIRE(claim);
  CHECK(board->ranges(*claim) == std::vector<ByteRange>{{0, 64 * kKiB}, {128 * kKiB, 64 * kKiB}});
  const auto late = join(folder, plan({512 * kKiB, 10}));
  board->settle(*claim, Outcome::done, 0);
  CHECK_FALSE(late->settled(kNoLimit));
  const auto asked = late->take(kNoLimit);
  REQUIRE(asked);
  CHECK(late->ranges(*asked) == std::vector<ByteRange>{{512 * kKiB, 10}});
}

TEST_CASE("in flight is what is fetched, and a window counts what anyone wants") {
  const TemporaryFolder folder;
  constexpr std::uint64_t kBlock = 1 * kMiB;
  const auto plan_of_part = [](std::uint64_t begin, std::uint64_t end) {
    std::vector<ByteRange> spans;
    for (std::uint64_t at = 0; at < 16 * kBlock; at += kBlock) {
      spans.push_back({at + begin, end - begin});
    }
    return std::make_shared<const Plan>(std::vector<PlannedFile>{{16 * kBlock, std::move(spans)}},
                                        PlanOptions{kBlock, kBlock, 0});
  };
  const auto eighths = plan_of_part(0, kBlock / 8);
  BoardRefusal refusal;
  const auto board =
      BoardClaims::join(folder.path(""), kName, eighths, share_of(*eighths, Partition::block, 0, 1),
                        refusal, {kBlock / 2});
  REQUIRE(board);
  CHECK(board->window_end(kBlock, {}) == 8 * kBlock);
  CHECK(board->behind(16 * kBlock, kBlock) == 8 * kBlock);
  for (int i = 0; i < 4; ++i) CHECK(board->take(kNoLimit));
  CHECK_FALSE(board->take(kNoLimit));
  // Another comes, and wants as much of each again: each claim counts twice.
  const auto other = join(folder, plan_of_part(kBlock / 2, kBlock * 5 / 8));
  CHECK(board->window_end(kBlock, {}) == 4 * kBlock);
  board->settle({.block = 0}, Outcome::done, 0);
  board->settle({.block = 1}, Outcome::done, 0);
  CHECK_FALSE(board->take(kNoLimit));
  board->settle({.block = 2}, Outcome::done, 0);
  CHECK(board->take(kNoLimit));
}

TEST_CASE("of what may be wrong the foremost comes first, whoever wants it") {
  constexpr std::uint64_t kBlock = kDoubtedInflightBytes / 2;
  using Blocks = std::vector<std::uint32_t>;
  const TemporaryFolder folder;
  const auto join_doubting = [&](std::uint64_t first, std::uint64_t count) {
    const auto plan = std::make_shared<const Plan>(
        std::vector<PlannedFile>{
            {20 * kBlock, std::vector<ByteRange>{{first * kBlock, count * kBlock}}}},
        PlanOptions{kBlock, kBlock, 0});
    BoardRefusal refusal;
    auto board =
        BoardClaims::join(folder.path(""), kName, plan, share_of(*plan, Partition::block, 0, 1),
                          refusal, {.doubted = true});
    REQUIRE(board);
    return board;
  };
  const auto taken_by = [](BoardClaims& board) {
    Blocks blocks;
    while (const auto claim = board.take(kNoLimit)) blocks.push_back(claim->block);
    return blocks;
  };
  const auto front = join_doubting(0, 4);
  const auto back = join_doubting(10, 4);
  CHECK(taken_by(*back) == Blocks{10});  // where nobody is at work there is no one to wait for
  CHECK(taken_by(*front) == Blocks{0, 1});
  back->settle({.block = 10}, Outcome::done, kBlock);
  CHECK(taken_by(*back).empty());
  front->settle({.block = 0}, Outcome::done, kBlock);
  CHECK(taken_by(*back).empty());
  CHECK(taken_by(*front) == Blocks{2});
  front->settle({.block = 1}, Outcome::done, kBlock);
  CHECK(taken_by(*front) == Blocks{3});
  front->settle({.block = 2}, Outcome::done, kBlock);
  CHECK(taken_by(*back) == Blocks{11});
}

TEST_SUITE_END();
