// ahead: how far the workers may go at present.
#include "engine/ahead.h"

#include <doctest/doctest.h>

#include <new>

#include "engine_fixture.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("ahead");

namespace {

constexpr std::uint64_t kWanted = 1 * kGiB;

struct AheadFixture {
  explicit AheadFixture(std::optional<std::uint64_t> window_bytes, bool consumer = true,
                        BudgetBytes budget = nullptr)
      : ahead(clock,
              WindowControl(window_bytes, kWanted,
                            consumer ? Follows::releasing_consumer : Follows::no_one),
              std::move(budget), consumer) {}

  WaitingClock clock;
  ToldClaims claims;
  Ahead ahead;
};

}  // namespace

TEST_CASE("without a window nothing ends the claiming") {
  AheadFixture fixture(0);
  fixture.claims.slowest = ConsumerPosition{};
  CHECK(fixture.ahead.limit(fixture.claims) == kNoEnd);
}

TEST_CASE("the window begins at the slowest consumer, or at this one where no other is known") {
  AheadFixture fixture(100);
  CHECK(fixture.ahead.limit(fixture.claims) == 100);
  const ConsumerPosition here{.consumed_bytes = 50, .needed_bytes = 60};
  CHECK(fixture.ahead.move_consumer(here) == ConsumerPosition{});
  CHECK(fixture.ahead.limit(fixture.claims) == 150);
  fixture.claims.slowest = ConsumerPosition{.consumed_bytes = 20, .needed_bytes = 500};
  CHECK(fixture.ahead.limit(fixture.claims) == 500);
  CHECK(fixture.ahead.move_consumer({}) == here);
}

TEST_CASE("where no consumer reports the window stays at the beginning") {
  AheadFixture fixture(100, false);
  fixture.claims.slowest = ConsumerPosition{.consumed_bytes = 20};
  CHECK(fixture.ahead.limit(fixture.claims) == 100);
}

TEST_CASE("memory is looked at twice a second at most, and decides where nothing was given") {
  int looks = 0;
  AheadFixture fixture(std::nullopt, true, [&] {
    ++looks;
    return std::optional<std::uint64_t>(kWanted / 2);
  });
  CHECK(fixture.ahead.window().source == WindowSource::none);
  for (int i = 0; i < 10; ++i) {
    fixture.ahead.look_at_memory();
    fixture.clock.time += std::chrono::milliseconds(100);
  }
  CHECK(looks == 2);
  CHECK(fixture.ahead.window().source == WindowSource::memory);
  CHECK(fixture.ahead.window().ahead_bytes == kWanted / 8);
}

TEST_CASE("a look for which there is no memory is one at nothing") {
  AheadFixture fixture(std::nullopt, true,
                       []() -> std::optional<std::uint64_t> { throw std::bad_alloc(); });
  fixture.ahead.look_at_memory();
  CHECK(fixture.ahead.window().source == WindowSource::none);
}

TEST_CASE("without anyone to ask memory is not looked at") {
  AheadFixture fixture(std::nullopt);
  fixture.ahead.look_at_memory();
  CHECK(fixture.ahead.window().source == WindowSource::none);
}

TEST_CASE("what went before it was read makes the window smaller") {
  AheadFixture fixture(std::nullopt);
  CHECK(fixture.ahead.window().ahead_bytes == 0);
  fixture.ahead.add_evicted(16 * kMiB);
  CHECK(fixture.ahead.window().ahead_bytes > 0);
  CHECK(fixture.ahead.window().source == WindowSource::memory);
}

TEST_CASE("a report rings where it opens a block, and else only says that something moves") {
  const Plan plan({{100 * kMinBlockBytes, {}}}, {kMinBlockBytes, kMinBlockBytes, 0});
  struct Move {
    std::uint64_t before = 0;
    std::uint64_t now = 0;
    std::optional<std::uint64_t> slowest = std::nullopt;
    bool rings = false;
  };
  constexpr std::uint64_t kBlock = kMinBlockBytes;
  for (const Move& move :
       {Move{0, 100, {}, true},                  // from the end of a window past the next block
        Move{100, 200, {}, false},               // within a block
        Move{kBlock - 1, kBlock + 1, {}, true},  // past the beginning of one
        Move{100, 5 * kBlock, 0, false},         // ahead of another
        Move{95 * kBlock, 98 * kBlock, {}, false}}) {  // past the end of the plan
    CAPTURE(move.before);
    CAPTURE(move.now);
    WaitingClock clock;
    ToldClaims claims;
    if (move.slowest) claims.slowest = ConsumerPosition{.consumed_bytes = *move.slowest};
    const std::uint32_t seen = doorbell_seen(claims.bell);
    ring_if_opened(clock, plan, claims, 10 * kBlock, {.consumed_bytes = move.before},
                   {.consumed_bytes = move.now});
    CHECK(doorbell_seen(claims.bell) == seen + 1);  // whoever looks sees that something moves
    CHECK(clock.unheard == (move.rings ? 0 : 1));
  }
}

TEST_SUITE_END();
