// wanted_blocks: what a participant knows of its blocks, while the board says whose they are.
#include "board/wanted_blocks.h"

#include <doctest/doctest.h>

#include "board_fixture.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("wanted_blocks");

namespace {

// All blocks of a plan, none of them begun, on a board of its own.
struct Wanted {
  explicit Wanted(std::shared_ptr<const Plan> blocks_of)
      : plan(std::move(blocks_of)),
        wanted(share_of(*plan, Partition::block, 0, 1)),
        states(plan->blocks().size()) {}
  explicit Wanted(std::size_t count) : Wanted(plan_of(count)) {}

  std::size_t first_open() {
    blocks.advance(states);
    return blocks.first_open();
  }

  std::shared_ptr<const Plan> plan;
  std::vector<std::uint32_t> wanted;
  std::vector<BlockState> states;
  WantedBlocks blocks{*plan, wanted};
};

}  // namespace

TEST_CASE("what is settled is passed in order, and what others did of it is counted once") {
  Wanted at(4);
  CHECK(at.first_open() == 0);
  at.states[1] = kDone;
  CHECK(at.first_open() == 0);
  CHECK(at.blocks.shared().done_bytes == 0);
  at.states[0] = kFailed;
  at.states[2] = claimed_by(7);
  for (int again = 0; again < 2; ++again) {
    CHECK(at.first_open() == 2);
    CHECK(at.blocks.shared().done_bytes == kMinBlockBytes);
    CHECK(at.blocks.shared().failed_bytes == kMinBlockBytes);
  }
  at.states[2] = at.states[3] = kDone;
  CHECK(at.first_open() == 4);
}

TEST_CASE("of what others did only the bytes that are wanted count") {
  Wanted at(plan_of_spans(2, {{0, 100}, {kMinBlockBytes, 20}}));
  at.states[0] = at.states[1] = kDone;
  CHECK(at.first_open() == 2);
  CHECK(at.blocks.shared().done_bytes == 120);
}

TEST_CASE("what was given out here is not counted as done by others, whoever settles it") {
  Wanted at(2);
  at.blocks.give_out(0, true);
  at.states[0] = kFailed;
  at.states[1] = kDone;
  CHECK(at.first_open() == 2);
  CHECK(at.blocks.shared().failed_bytes == 0);
  CHECK(at.blocks.shared().done_bytes == kMinBlockBytes);
}

TEST_CASE(
    "what was begun before is given out once it is settled, and holds the rest up until then") {
  Wanted at(2);
  at.blocks.recheck(0);
  at.states[0] = claimed_by(7);
  CHECK_FALSE(at.blocks.is_to_recheck(0, at.states[0]));
  at.states[0] = at.states[1] = kDone;
  CHECK(at.blocks.is_to_recheck(0, at.states[0]));
  CHECK_FALSE(at.blocks.is_to_recheck(1, at.states[1]));
  CHECK(at.first_open() == 0);
  at.blocks.give_out(0, false);
  CHECK_FALSE(at.blocks.is_to_recheck(0, at.states[0]));
  CHECK_FALSE(at.blocks.is_in_hand(0));
  CHECK(at.first_open() == 2);
  CHECK(at.blocks.shared().done_bytes == kMinBlockBytes);
}

TEST_CASE("what is claimed is in hand until it is put down, and may be claimed again") {
  Wanted at(2);
  for (int again = 0; again < 2; ++again) {
    CHECK_FALSE(at.blocks.is_in_hand(1));
    at.blocks.give_out(1, true);
    CHECK(at.blocks.is_in_hand(1));
    at.blocks.put_down(1);
  }
  CHECK_FALSE(at.blocks.is_in_hand(1));
}

TEST_CASE("places are those of the wanted blocks") {
  const auto plan = plan_of(8);
  const std::vector<std::uint32_t> wanted = {1, 4, 6};
  WantedBlocks blocks(*plan, wanted);
  CHECK(blocks.place_of(4) == 1);
  CHECK(blocks.place_of(6) == 2);
  for (const std::uint32_t other : {0U, 5U, 7U}) CHECK_FALSE(blocks.place_of(other));
  blocks.give_out(1, true);
  blocks.put_down(5);  // no one's
  CHECK(blocks.is_in_hand(1));
  blocks.put_down(4);
  CHECK_FALSE(blocks.is_in_hand(1));
  std::vector<BlockState> states(8);
  states[1] = kDone;
  blocks.advance(states);
  CHECK(blocks.first_open() == 1);
  CHECK(blocks.is_settled_before(4 * kMinBlockBytes));
  CHECK_FALSE(blocks.is_settled_before(4 * kMinBlockBytes + 1));
  states[4] = states[6] = kDone;
  blocks.advance(states);
  CHECK(blocks.is_settled_before(kNoLimit));
}

TEST_SUITE_END();
