// pace: who may take a block now, who waits, and what a consumer reads meanwhile. On a clock that
// the test moves.
#include "engine/pace.h"

#include <doctest/doctest.h>

#include "board_fixture.h"
#include "engine_fixture.h"

using namespace shardahead;
using namespace shardahead::testing;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

TEST_SUITE_BEGIN("pace");

namespace {

// A block in 10 s, so that the tenth of a second beside it is less than one.
constexpr std::uint64_t kRate = kMinBlockBytes / 10;

struct Paced {
  explicit Paced(std::uint64_t rate = kRate) : pace(clock, *plan, rate) {}

  bool may_take() { return pace.pay(claims) == nanoseconds(0); }
  void pass(nanoseconds time) {
    clock.time += std::chrono::duration_cast<Runtime::Time::duration>(time);
  }

  WaitingClock clock;
  std::shared_ptr<const Plan> plan = plan_of(8);
  ToldClaims claims;
  Pace pace;
};

}  // namespace

TEST_CASE("without a limit everyone may, and nothing is counted") {
  Paced at(0);
  std::atomic<RateLimit::PaidUntil> account{0};
  at.claims.account = &account;
  for (int i = 0; i < 100; ++i) {
    CHECK(at.may_take());
    at.pace.settle(at.claims, kMinBlockBytes);
    at.pace.charge(&at.claims, kMinBlockBytes);
  }
  CHECK_FALSE(at.pace.limits());
  CHECK(at.claims.accounts_asked == 0);
  CHECK(account == 0);
}

TEST_CASE("a second worker waits as long as it is told, and then may") {
  Paced at;
  CHECK(at.may_take());
  const auto pause = at.pace.pay(at.claims);
  CHECK(pause > seconds(9));
  CHECK(pause <= seconds(10));
  at.pass(pause - nanoseconds(1000));
  CHECK_FALSE(at.may_take());
  at.pass(nanoseconds(1000));
  CHECK(at.may_take());
}

TEST_CASE("blocks that were resident cost nothing") {
  Paced at;
  for (int i = 0; i < 100; ++i) {
    REQUIRE(at.may_take());
    at.pace.settle(at.claims, 0);
  }
}

TEST_CASE("of a block that was there in part the rest is paid for") {
  Paced at;
  CHECK(at.may_take());
  at.pace.settle(at.claims, kMinBlockBytes / 2);
  CHECK_FALSE(at.may_take());
  at.pass(seconds(5));
  CHECK(at.may_take());
}

TEST_CASE("what was read beyond a block, to the end of a page, is paid for as well") {
  Paced at;
  CHECK(at.may_take());
  at.pace.settle(at.claims, kMinBlockBytes + kMinBlockBytes / 2);
  at.pass(seconds(10));
  CHECK_FALSE(at.may_take());
  at.pass(seconds(5));
  CHECK(at.may_take());
}

TEST_CASE("participants with an account in common wait for each other's bytes") {
  std::atomic<RateLimit::PaidUntil> account{0};
  Paced one;
  Paced other;
  one.claims.account = other.claims.account = &account;
  CHECK(one.may_take());
  CHECK_FALSE(other.may_take());
  other.pass(seconds(10));
  CHECK(other.may_take());
  one.pass(seconds(10));
  CHECK_FALSE(one.may_take());
}

TEST_CASE("without one each has its own") {
  Paced one;
  Paced other;
  CHECK(one.may_take());
  CHECK(other.may_take());
}

TEST_CASE("what a consumer reads holds up workers, with claims and when they are gone") {
  for (const bool gone : {false, true}) {
    Paced at;
    at.pace.charge(gone ? nullptr : &at.claims, kMinBlockBytes);
    CHECK_FALSE(at.may_take());
    at.pass(seconds(10));
    CHECK(at.may_take());
  }
}

TEST_CASE("participants of a board share an account, also one that came later") {
  const TemporaryFolder folder(true);
  const auto plan = plan_of(4);
  const auto board = join(folder, plan);
  WaitingClock clock;
  Pace pace(clock, *plan, kRate);
  CHECK(pace.pay(*board) == nanoseconds(0));
  const auto later = join(folder, plan);
  Pace other(clock, *plan, kRate);
  CHECK(other.pay(*later) > seconds(9));
  Pace unlimited(clock, *plan, 0);
  CHECK(unlimited.pay(*later) == nanoseconds(0));
}

TEST_CASE(
    "limits far apart on one board: each keeps its own, and takes none of it from the other") {
  const TemporaryFolder folder(true);
  const auto plan = plan_of(4);
  const auto one = join(folder, plan);
  const auto other = join(folder, plan);
  WaitingClock clock;
  Pace slow(clock, *plan, kMinBlockBytes / 20);
  Pace fast(clock, *plan, kMinBlockBytes * 100);
  const auto take_all = [](Pace& pace, Claims& claims) {
    int blocks = 0;
    for (; pace.pay(claims) == nanoseconds(0); ++blocks) pace.settle(claims, kMinBlockBytes);
    return blocks;
  };
  int slow_blocks = 0;
  int fast_blocks = 0;
  for (int i = 0; i < 10'000; ++i) {
    slow_blocks += take_all(slow, *one);
    fast_blocks += take_all(fast, *other);
    clock.time += milliseconds(10);
  }
  // 100 s, and a burst.
  CHECK(slow_blocks >= 4);
  CHECK(slow_blocks <= 7);
  CHECK(fast_blocks >= 9'900);
  CHECK(fast_blocks <= 10'012);
}

TEST_SUITE_END();
