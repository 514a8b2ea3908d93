// others: who counts as stopped, whose consumer is waited for, and how long a block is in one hand,
// as one participant sees it.
#include "board/others.h"

#include <doctest/doctest.h>

#include <array>

using namespace shardahead;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_SUITE_BEGIN("others");

namespace {

constexpr std::uint32_t kOwn = 3;
constexpr Others::Time kStart{seconds(1000)};

// Looks at `slot` every 200 ms; after how long it was silent, if ever within a minute.
std::optional<std::chrono::nanoseconds> silent_after(Others& others, std::uint32_t slot,
                                                     microseconds block_time) {
  for (auto passed = milliseconds(0); passed < seconds(60); passed += milliseconds(200)) {
    if (others.is_silent(slot, 7, block_time, kStart + passed)) return passed;
  }
  return std::nullopt;
}

void put(ConsumerSlot& slot, std::uint64_t consumed_bytes) {
  slot.active = 1;
  slot.consumed_bytes = consumed_bytes;
  slot.needed_bytes = consumed_bytes + 10;
  slot.released_bytes = consumed_bytes / 2;
}

}  // namespace

TEST_CASE("how long one may be silent follows the time that a block takes") {
  for (const auto& [block_time, allowed] : {std::pair{microseconds(10), milliseconds(1000)},
                                            {seconds(2), seconds(6)},
                                            {microseconds(0), seconds(10)}}) {
    Others others(kOwn, 0);
    CHECK(silent_after(others, 5, block_time) == allowed);
  }
}

TEST_CASE("one that shows life is not silent, and each slot counts by itself") {
  Others others(kOwn, 0);
  std::uint32_t life = 0;
  for (auto passed = milliseconds(0); passed <= seconds(5); passed += milliseconds(200)) {
    CHECK_FALSE(others.is_silent(6, ++life, milliseconds(1), kStart + passed));
    CHECK(others.is_silent(5, 7, milliseconds(1), kStart + passed) == (passed >= seconds(1)));
  }
}

TEST_CASE("neither oneself nor what is no slot is ever silent") {
  Others others(kOwn, 0);
  CHECK_FALSE(silent_after(others, kOwn, milliseconds(1)));
  CHECK_FALSE(silent_after(others, kBoardSlots, milliseconds(1)));
  CHECK(silent_after(others, kBoardSlots - 1, milliseconds(1)));
}

TEST_CASE("a block is held since it was first seen so, as far as it was looked at") {
  Others others(kOwn, 2);
  const auto one = claimed_by(5);
  const auto other = claimed_by(6);
  CHECK_FALSE(others.held_since(1, one));
  CHECK(others.look_at(1, one, kStart) == kStart);
  CHECK(others.look_at(1, one, kStart + seconds(4)) == kStart);
  CHECK(others.held_since(1, one) == kStart);
  CHECK_FALSE(others.held_since(1, other));
  CHECK_FALSE(others.held_since(0, one));
  CHECK(others.look_at(1, other, kStart + seconds(5)) == kStart + seconds(5));
  CHECK(others.look_at(1, one, kStart + seconds(6)) == kStart + seconds(6));
}

TEST_CASE("the slowest of the consumers is the one that is waited for, field by field") {
  Others others(kOwn, 0);
  std::array<ConsumerSlot, 8> consumers{};
  CHECK_FALSE(others.slowest_consumer(consumers, kStart));
  consumers[1].consumed_bytes = 5;  // it has ended
  put(consumers[kOwn], 100);
  put(consumers[5], 60);
  put(consumers[6], 200);
  consumers[6].released_bytes = 10;
  CHECK(others.slowest_consumer(consumers, kStart) == ConsumerPosition{60, 70, 10});
  consumers[5].active = 0;
  CHECK(others.slowest_consumer(consumers, kStart) == ConsumerPosition{100, 110, 10});
}

TEST_CASE("who does not move is not waited for until it moves again, but oneself always is") {
  Others others(kOwn, 0);
  std::array<ConsumerSlot, 8> consumers{};
  put(consumers[kOwn], 100);
  put(consumers[5], 60);
  const auto consumed_by_slowest = [&](Others::Time now) {
    return others.slowest_consumer(consumers, now).value().consumed_bytes;
  };
  CHECK(consumed_by_slowest(kStart) == 60);
  CHECK(consumed_by_slowest(kStart + milliseconds(2400)) == 60);
  CHECK(consumed_by_slowest(kStart + milliseconds(2600)) == 100);
  consumers[5].consumed_bytes = 61;
  CHECK(consumed_by_slowest(kStart + milliseconds(2700)) == 61);
}

TEST_SUITE_END();
