// inflight: the climb against storage of a known shape.
#include "inflight.h"

#include <doctest/doctest.h>

#include <functional>

using namespace shardahead;

TEST_SUITE_BEGIN("inflight");

namespace {

// Bytes per second with so many bytes in flight.
using Storage = std::function<double(double inflight_bytes)>;

// A link of `rate` with a round trip: full once rate * seconds are in flight.
Storage link(double rate, double round_trip_seconds) {
  return [=](double inflight) { return std::min(rate, inflight / round_trip_seconds); };
}

std::uint64_t climb_on(InflightClimb& climb, const Storage& storage, int epochs) {
  for (int i = 0; i < epochs; ++i) {
    const double rate = storage(static_cast<double>(climb.bytes()));
    climb.epoch(climb.epoch_bytes(), static_cast<double>(climb.epoch_bytes()) / rate);
    CHECK(climb.bytes() >= kMinInflightBytes);
    CHECK(climb.bytes() <= kMaxInflightBytes);
  }
  return climb.bytes();
}

}  // namespace

TEST_CASE("a set value stays") {
  InflightClimb climb(123456789);
  CHECK(climb_on(climb, link(1e12, 1), 50) == 123456789);
}

TEST_CASE("it climbs while throughput grows") {
  InflightClimb climb;
  // 2.5 GB/s at 100 ms: 250 MB have to be in flight.
  CHECK(climb_on(climb, link(2.5e9, 0.1), 10) >= 238 * kMiB);
}

TEST_CASE("a link that is full with little is left alone with little") {
  InflightClimb climb;
  std::uint64_t most = 0;
  for (int i = 0; i < 100; ++i) most = std::max(most, climb_on(climb, link(3e8, 0.001), 1));
  CHECK(most <= 2 * kFirstInflightBytes);
}

TEST_CASE("where more in flight is slower, it goes down and stays near the floor") {
  InflightClimb climb;
  const Storage disk = [](double inflight) { return 1.5e8 / (1 + inflight / (16.0 * kMiB)); };
  climb_on(climb, disk, 60);
  std::uint64_t sum = 0;
  for (int i = 0; i < 40; ++i) sum += climb_on(climb, disk, 1);
  CHECK(sum / 40 <= 2 * kMinInflightBytes);
}

TEST_CASE("it finds the new rate of storage that became faster") {
  InflightClimb climb;
  climb_on(climb, link(3e8, 0.01), 30);
  const auto before = climb.bytes();
  climb_on(climb, link(5e9, 0.05), 60);
  CHECK(climb.bytes() > before);
}

TEST_SUITE_END();
