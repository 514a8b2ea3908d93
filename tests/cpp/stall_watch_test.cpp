// stall_watch: when a worker that finds nothing to do looks for claims that no one works on.
#include "engine/stall_watch.h"

#include <doctest/doctest.h>

using namespace shardahead;
using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_SUITE_BEGIN("stall_watch");

namespace {

struct Watched {
  // Looks every 100 ms for so long; whether it was told of a stall.
  bool stalls_within(std::chrono::nanoseconds duration) {
    bool stalled = false;
    for (const auto end = now + duration; now < end;) {
      now += kRecoveryInterval;
      const auto look = watch.look(bell, now);
      REQUIRE(look);
      stalled |= *look;
    }
    return stalled;
  }

  StallWatch::Time now = StallWatch::Time(seconds(100));
  StallWatch watch{now};
  DoorbellWord bell{0};
};

}  // namespace

TEST_CASE("the dead are looked for every 100 ms, by whichever worker comes then") {
  Watched at;
  CHECK_FALSE(at.watch.look(at.bell, at.now + milliseconds(99)));
  CHECK(at.watch.look(at.bell, at.now + milliseconds(100)) == false);
  CHECK_FALSE(at.watch.look(at.bell, at.now + milliseconds(199)));
  CHECK(at.watch.look(at.bell, at.now + milliseconds(200)) == false);
}

TEST_CASE("where nothing changes for 10 s that is a stall, and 10 s later again") {
  Watched at;
  CHECK_FALSE(at.stalls_within(kStallTime));
  CHECK(at.stalls_within(kRecoveryInterval));
  CHECK_FALSE(at.stalls_within(kStallTime));
  CHECK(at.stalls_within(kRecoveryInterval));
}

TEST_CASE("a ring is a change, and so is a block of this process") {
  for (const bool rings : {false, true}) {
    CAPTURE(rings);
    Watched at;
    CHECK_FALSE(at.stalls_within(seconds(9)));
    if (rings) {
      ring(at.bell);
    } else {
      at.watch.note_change(at.now);
    }
    CHECK_FALSE(at.stalls_within(kStallTime));
    CHECK(at.stalls_within(2 * kRecoveryInterval));
  }
}

TEST_CASE("time in which no one looked is no stall: all were at work, or stopped") {
  Watched at;
  CHECK_FALSE(at.stalls_within(seconds(9)));
  at.now += seconds(60);
  CHECK_FALSE(at.stalls_within(kStallTime));
  CHECK(at.stalls_within(2 * kRecoveryInterval));
}

TEST_SUITE_END();
