// patience: when a consumer waits on, and when it stops waiting.
#include "board/patience.h"

#include <doctest/doctest.h>

using namespace shardahead;

TEST_SUITE_BEGIN("patience");

namespace {

constexpr Patience::Time kStart{};
constexpr auto kHalf = kConsumerPatience / 2;

Standing claimed(std::uint32_t block, std::uint32_t unsettled = 1) {
  return {.unsettled = unsettled, .first_unsettled = block, .claimed = true};
}

Standing unclaimed(std::uint32_t block) { return {.unsettled = 1, .first_unsettled = block}; }

}  // namespace

TEST_CASE("what is settled is not waited for") {
  Patience patience;
  auto wait = patience.begin({}, 0, kStart);
  CHECK_FALSE(patience.go_on(wait, {}, 0, kStart));
}

TEST_CASE("ranks that are opening files are waited for longer than those that have not come") {
  constexpr auto kMoment = std::chrono::milliseconds(1);
  CHECK(waits_for_others({.opened = 1, .opening = 0}, 4, kAbsentPatience - kMoment));
  CHECK_FALSE(waits_for_others({.opened = 1, .opening = 2}, 4, kAbsentPatience));
  CHECK(waits_for_others({.opened = 1, .opening = 3}, 4, kAbsentPatience));
  CHECK_FALSE(waits_for_others({.opened = 1, .opening = 3}, 4, kOpeningPatience));
}

TEST_CASE("where all ranks have opened their files none is waited for") {
  using std::chrono::nanoseconds;
  CHECK_FALSE(waits_for_others({.opened = 4, .opening = 0}, 4, nanoseconds(0)));
  CHECK_FALSE(waits_for_others({.opened = 4, .opening = 1}, 4, nanoseconds(0)));
  CHECK_FALSE(waits_for_others({.opened = 1, .opening = 0}, 1, nanoseconds(0)));
}

TEST_CASE("a claimed block is waited for until nothing has moved for too long") {
  Patience patience;
  auto wait = patience.begin(claimed(5), 0, kStart);
  CHECK(patience.go_on(wait, claimed(5), 0, kStart + kHalf));
  CHECK(patience.go_on(wait, claimed(5), 1, kStart + kHalf * 3 / 2));
  CHECK_FALSE(patience.go_on(wait, claimed(5), 1, kStart + kHalf * 3 / 2 + kConsumerPatience));
}

TEST_CASE("a block that someone has for ever is given up, whatever else moves") {
  Patience patience;
  auto wait = patience.begin(claimed(5), 0, kStart);
  std::uint32_t ring = 0;
  auto now = kStart;
  while (patience.go_on(wait, claimed(5), ++ring, now)) now += kHalf;
  CHECK(now - kStart >= kBlockPatience);
  CHECK(now - kStart < kBlockPatience + kConsumerPatience);
}

TEST_CASE("a block that someone is known to have for long is not waited for once more") {
  Patience patience;
  Standing standing = claimed(5);
  standing.held_since = kStart;
  auto now = kStart + kBlockPatience - kHalf;
  auto wait = patience.begin(standing, 0, now);
  CHECK(patience.go_on(wait, standing, 1, now));
  CHECK_FALSE(patience.go_on(wait, standing, 2, now + kHalf));
  standing = claimed(6);  // the next of the same owner
  standing.held_since = kStart;
  auto next = patience.begin(standing, 3, now + kHalf);
  CHECK_FALSE(patience.go_on(next, standing, 3, now + kHalf));
}

TEST_CASE("that it is known since when someone has a block is no change") {
  Patience patience;
  Standing standing = claimed(5);
  auto wait = patience.begin(standing, 0, kStart);
  standing.held_since = kStart + kHalf;
  CHECK(patience.go_on(wait, standing, 0, kStart + kHalf));
  CHECK_FALSE(patience.go_on(wait, standing, 0, kStart + kConsumerPatience));
}

TEST_CASE("each block that settles starts the wait anew") {
  Patience patience;
  auto wait = patience.begin(claimed(0, 9), 0, kStart);
  for (std::uint32_t settled = 1; settled < 9; ++settled) {
    CHECK(patience.go_on(wait, claimed(settled, 9 - settled), settled, kStart + settled * kHalf));
  }
  CHECK_FALSE(patience.go_on(wait, {}, 9, kStart + 9 * kHalf));
}

TEST_CASE("a block that no one has yet is waited for as long as anything moves") {
  Patience patience;
  auto wait = patience.begin(unclaimed(100), 0, kStart);
  for (std::uint32_t ring = 1; ring < 50; ++ring) {
    CHECK(patience.go_on(wait, unclaimed(100), ring, kStart + ring * kHalf));
  }
  const auto last = kStart + 49 * kHalf;
  CHECK_FALSE(patience.go_on(wait, unclaimed(100), 49, last + kConsumerPatience));
}

TEST_CASE("a block that was given up is not waited for again") {
  Patience patience;
  auto wait = patience.begin(claimed(5), 0, kStart);
  REQUIRE_FALSE(patience.go_on(wait, claimed(5), 0, kStart + kConsumerPatience));
  auto next = patience.begin(claimed(5), 7, kStart + kConsumerPatience);
  CHECK_FALSE(patience.go_on(next, claimed(5), 7, kStart + kConsumerPatience));
}

TEST_CASE("while everything stands still nothing else is waited for either") {
  Patience patience;
  auto wait = patience.begin(claimed(5), 3, kStart);
  REQUIRE_FALSE(patience.go_on(wait, claimed(5), 3, kStart + kConsumerPatience));
  const auto later = kStart + kConsumerPatience;
  auto still = patience.begin(claimed(6), 3, later);
  CHECK_FALSE(patience.go_on(still, claimed(6), 3, later));
  auto moving = patience.begin(claimed(6), 4, later);
  CHECK(patience.go_on(moving, claimed(6), 4, later));
}

TEST_SUITE_END();
