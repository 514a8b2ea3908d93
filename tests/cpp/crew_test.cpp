// crew: who works, on which claims, until when.
#include "engine/crew.h"

#include <doctest/doctest.h>

#include <thread>

#include "engine_fixture.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("crew");

namespace {

struct CrewFixture {
  explicit CrewFixture(bool has_consumer = false)
      : crew(clock, std::make_unique<ToldClaims>(), has_consumer, [this](const Claims& claims) {
          CHECK(&claims == told);
          ++farewells;
        }) {
    told = static_cast<ToldClaims*>(crew.claims().get());
  }

  std::uint32_t begin(std::uint32_t workers, std::uint32_t most = 100) {
    return crew.begin(workers, [=](std::uint32_t number, const std::shared_ptr<Claims>& claims) {
      CHECK(claims);
      return number < most;
    });
  }

  WaitingClock clock;
  int farewells = 0;
  const ToldClaims* told = nullptr;
  Crew crew;
};

}  // namespace

TEST_CASE("as many workers are counted as can be started") {
  CrewFixture fixture;
  CHECK(fixture.begin(4, 3) == 3);
  CHECK(fixture.crew.status().running == 3);
  CHECK_FALSE(fixture.crew.wait(std::chrono::nanoseconds(0)));
}

TEST_CASE("the last to leave gives the claims up, and says so before") {
  CrewFixture fixture;
  fixture.begin(2);
  CHECK(fixture.crew.claims_at_work());
  fixture.crew.leave();
  CHECK(fixture.farewells == 0);
  CHECK(fixture.crew.claims_at_work());
  fixture.crew.leave();
  CHECK(fixture.farewells == 1);
  CHECK_FALSE(fixture.crew.claims());
  CHECK_FALSE(fixture.crew.claims_at_work());
  CHECK(fixture.crew.wait(std::chrono::nanoseconds(0)));
  fixture.crew.cancel();
  CHECK(fixture.farewells == 1);
  CHECK_FALSE(fixture.crew.is_cancelled());  // it had ended before
}

TEST_CASE("where no worker can be started nothing is left to wait for") {
  CrewFixture fixture;
  CHECK(fixture.begin(2, 0) == 0);
  CHECK(fixture.crew.wait(std::chrono::hours(1)));
  CHECK(fixture.farewells == 1);
}

TEST_CASE("a consumer keeps its place after the last worker, until it is cancelled") {
  CrewFixture fixture(true);
  fixture.begin(1);
  fixture.crew.leave();
  CHECK(fixture.crew.claims());
  CHECK_FALSE(fixture.crew.claims_at_work());
  CHECK(fixture.farewells == 0);
  const auto kept = fixture.crew.claims();
  fixture.crew.cancel();
  CHECK(fixture.told->consumer_ended);
  CHECK(fixture.farewells == 1);
  CHECK_FALSE(fixture.crew.claims());
}

TEST_CASE("cancelled, the workers are woken, and keep their claims until they leave") {
  for (const bool has_consumer : {false, true}) {
    CrewFixture fixture(has_consumer);
    fixture.begin(1);
    const auto claims = fixture.crew.claims();
    const std::uint32_t seen = doorbell_seen(claims->doorbell());
    fixture.crew.cancel();
    CHECK(fixture.crew.is_cancelled());
    CHECK(fixture.crew.cancelled().load());
    CHECK(doorbell_seen(claims->doorbell()) != seen);
    CHECK(fixture.told->consumer_ended == has_consumer);
    CHECK(fixture.crew.claims());
    CHECK_FALSE(fixture.crew.claims_at_work());
    fixture.crew.leave();
    CHECK_FALSE(fixture.crew.claims());
  }
}

TEST_CASE("its seconds end with the last worker") {
  CrewFixture fixture;
  fixture.begin(1);
  fixture.clock.time += std::chrono::seconds(3);
  CHECK(fixture.crew.status().seconds == 3);
  fixture.crew.leave();
  fixture.clock.time += std::chrono::seconds(4);
  CHECK(fixture.crew.status().seconds == 3);
}

TEST_CASE("who waits is woken by the last to leave") {
  // On the real clock: the other does not wait for the thread.
  Crew crew(system_runtime(), std::make_unique<ToldClaims>(), false, [](const Claims&) {});
  crew.begin(1, [](std::uint32_t, const std::shared_ptr<Claims>&) { return true; });
  std::thread worker([&] { crew.leave(); });
  CHECK(crew.wait(kHangBound));
  worker.join();
}

TEST_CASE("who waits a moment comes back when it is over, or before") {
  CrewFixture fixture;
  fixture.begin(1);
  CHECK_FALSE(fixture.crew.wait_a_moment(std::chrono::seconds(1)));
  fixture.crew.leave();
  CHECK(fixture.crew.wait_a_moment(std::chrono::seconds(1)));
}

TEST_SUITE_END();
