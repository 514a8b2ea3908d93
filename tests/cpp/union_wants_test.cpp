// union_wants: what several want of the same blocks, as they say it on a board.
#include "board/union_wants.h"

#include <doctest/doctest.h>

#include "board_fixture.h"
#include "simulated_random.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("union_wants");

namespace {

constexpr std::uint64_t kFile = 1 * kMiB;
constexpr PlanOptions kOptions{512 * kKiB, 512 * kKiB, 0};  // two blocks of eight grains

// Memory that is no one's but ours, and participants on it.
struct Board {
  explicit Board(std::uint64_t file_bytes = kFile)
      : whole({{file_bytes, {}}}, kOptions),
        bytes(BoardShape(whole).size_bytes() / sizeof(std::uint64_t) + 1),
        memory(reinterpret_cast<std::byte*>(bytes.data()), BoardShape(whole)) {}

  Plan whole;
  std::vector<std::uint64_t> bytes;
  BoardMemory memory;
};

struct Participant {
  Participant(const Board& board, std::vector<ByteRange> spans)
      : plan({{board.whole.total_bytes(), std::move(spans)}}, kOptions),
        wants(plan, board.memory, Grains(plan)) {
    wants.add(share_of(plan, Partition::block, 0, 1));
  }
  Plan plan;
  UnionWants wants;
};

}  // namespace

TEST_CASE("what one wants of a block is fetched to the byte") {
  const Board board;
  Participant one(board, {{100, 200}, {300 * kKiB, 10}});
  CHECK(one.wants.ranges(0) == std::vector<ByteRange>{{100, 200}, {300 * kKiB, 10}});
  CHECK(one.wants.sums().all() == 210);
  CHECK(one.wants.sums().of(1) == 0);
}

TEST_CASE("what several want of it is fetched in grains, once, and nothing else") {
  const Board board;
  Participant one(board, {{0, 200 * kKiB}});
  Participant two(board, {{130 * kKiB, 70 * kKiB}, {500 * kKiB, 100 * kKiB}});
  for (Participant* each : {&one, &two}) {
    CHECK(each->wants.ranges(0) ==
          std::vector<ByteRange>{{0, 256 * kKiB}, {448 * kKiB, 64 * kKiB}});
    CHECK(each->wants.sums().of(0) == 320 * kKiB);
  }
  CHECK(two.wants.ranges(1) == std::vector<ByteRange>{{512 * kKiB, 88 * kKiB}});
  // The other's, seen from one that does not want it: what is marked.
  CHECK(one.wants.sums().of(1) == 128 * kKiB);
}

TEST_CASE("what one wants whole is whole for all, whoever came first") {
  for (const bool whole_first : {false, true}) {
    const Board board;
    std::optional<Participant> whole;
    if (whole_first) whole.emplace(board, std::vector<ByteRange>{{0, kFile}});
    Participant part(board, {{0, 10}});
    if (!whole_first) whole.emplace(board, std::vector<ByteRange>{{0, kFile}});
    for (Participant* each : {&part, &*whole}) {
      CHECK(each->wants.ranges(0) == std::vector<ByteRange>{{0, 512 * kKiB}});
      CHECK(each->wants.sums().all() == kFile);
    }
  }
}

TEST_CASE("sums are looked at anew only where more is wanted") {
  const Board board;
  Participant one(board, {{0, 100}});
  CHECK(one.wants.sums().all() == 100);
  const std::uint32_t changes = board.memory.header->wants_changes;
  Participant two(board, {{600 * kKiB, 100}});
  CHECK(board.memory.header->wants_changes == changes + 1);
  CHECK(one.wants.sums().of(1) == 64 * kKiB);
  Participant whole(board, {{0, kFile}});
  CHECK(one.wants.sums().all() == kFile);
  const std::uint32_t all = board.memory.header->wants_changes;
  Participant again(board, {{0, kFile}});
  CHECK(board.memory.header->wants_changes == all);  // nothing new
}

TEST_CASE("whatever stands on the board, a participant's own is fetched, and nothing outside") {
  for (std::uint64_t seed = 1; seed <= 500; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    Board board(random.between(1, kFile));
    Participant one(board, {{random.below(kFile), random.between(1, kFile)}});
    for (std::size_t i = sizeof(BoardHeader) / 8; i < board.bytes.size(); ++i) {
      board.bytes[i] = random.next();
    }
    if (random.chance(50)) {
      for (BlockWants& wants : board.memory.wants) wants = kWantedInGrains;
    }
    board.memory.header->wants_changes = static_cast<std::uint32_t>(random.next());
    for (std::uint32_t index = 0; index < one.plan.blocks().size(); ++index) {
      const Block& block = one.plan.blocks()[index];
      const auto ranges = one.wants.ranges(index);
      CHECK(ranges == merge_ranges(ranges));
      for (const ByteRange& range : ranges) CHECK(intersect(range, block.range) == range);
      for (const ByteRange& own : one.plan.wanted(block)) {
        CHECK(intersect(ranges, own) == std::vector{own});
      }
      CHECK(one.wants.sums().of(index) <= block.range.length);
    }
  }
}

TEST_SUITE_END();
