// inflight: the climb against storage of a known shape.
#include "plan/inflight.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <vector>

using namespace shardahead;

TEST_SUITE_BEGIN("inflight");

namespace {

constexpr std::uint64_t kBlock = 16 * kMiB;

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
    CHECK(climb.bytes() >= kBlock);
    CHECK(climb.bytes() <= kMaxInflightBytes);
  }
  return climb.bytes();
}

// The ends and the most ever of climbs on a link that `filled_by` in flight fill, whose rate varies
// by 15 % from epoch to epoch.
struct Climbs {
  std::vector<std::uint64_t> ends;
  std::vector<std::uint64_t> most;
};

Climbs climbs_on_noise(double filled_by, int epochs) {
  Climbs found;
  for (unsigned seed = 0; seed < 500; ++seed) {
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<double> noise(0.85, 1.15);
    InflightClimb climb(kBlock);
    std::uint64_t most = 0;
    for (int i = 0; i < epochs; ++i) {
      const auto noisy = [&](double inflight) {
        return std::min(5e8, 5e8 * inflight / filled_by) * noise(random);
      };
      most = std::max(most, climb_on(climb, noisy, 1));
    }
    found.ends.push_back(climb.bytes());
    found.most.push_back(most);
  }
  std::ranges::sort(found.ends);
  std::ranges::sort(found.most);
  return found;
}

}  // namespace

TEST_CASE("a set value stays") {
  InflightClimb climb(kBlock, 123456789);
  CHECK(climb_on(climb, link(1e12, 1), 50) == 123456789);
}

TEST_CASE("it climbs while throughput grows") {
  InflightClimb climb(kBlock);
  // 2.5 GB/s at 100 ms: 250 MB have to be in flight.
  CHECK(climb_on(climb, link(2.5e9, 0.1), 10) >= 238 * kMiB);
}

TEST_CASE("a link that is full with little is left alone with little") {
  InflightClimb climb(kBlock);
  int with_more = 0;
  for (int i = 0; i < 100; ++i) {
    with_more += climb_on(climb, link(3e8, 0.001), 1) > 4 * kBlock ? 1 : 0;
  }
  CHECK(with_more <= 4);
  CHECK(climb.bytes() == 4 * kBlock);
}

TEST_CASE("where more in flight is slower, one stream is found at once and seldom left") {
  InflightClimb climb(kBlock);
  const Storage disk = [](double inflight) { return 1.5e8 / (1 + inflight / (16.0 * kMiB)); };
  CHECK(climb_on(climb, disk, 3) == kBlock);
  int with_more = 0;
  for (int i = 0; i < 100; ++i) with_more += climb_on(climb, disk, 1) > kBlock ? 1 : 0;
  CHECK(with_more <= 4);
}

TEST_CASE("noise does not starve a link that needs two blocks in flight") {
  for (unsigned seed = 0; seed < 100; ++seed) {
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<double> noise(0.92, 1.08);
    InflightClimb climb(kBlock);
    int starved = 0;
    for (int i = 0; i < 100; ++i) {
      starved += climb_on(climb, [&](double) { return 5e8 * noise(random); }, 1) == kBlock ? 1 : 0;
    }
    CHECK(starved == 0);
  }
}

TEST_CASE("noise does not drive it upwards") {
  const Climbs full = climbs_on_noise(64.0 * kMiB, 100);
  CHECK(full.ends[full.ends.size() / 2] == 64 * kMiB);
  CHECK(full.ends[full.ends.size() * 9 / 10] <= 128 * kMiB);
  CHECK(full.most.back() <= 512 * kMiB);
}

TEST_CASE("what is needed is found through noise") {
  const Climbs found = climbs_on_noise(256.0 * kMiB, 20);
  CHECK(found.ends[found.ends.size() / 10] >= 256 * kMiB);
  CHECK(found.ends[found.ends.size() / 2] <= 256 * kMiB);
}

TEST_CASE("a small gain is taken once it was seen three times") {
  InflightClimb climb(kBlock);
  // A fifth more with each doubling.
  const Storage slope = [](double inflight) {
    return 1e8 * std::pow(1.2, std::log2(inflight / (16.0 * kMiB)));
  };
  CHECK(climb_on(climb, slope, 1) == 2 * kBlock);  // less is tried first
  CHECK(climb_on(climb, slope, 1) == 8 * kBlock);
  for (int again = 0; again < 2; ++again) {
    CHECK(climb_on(climb, slope, 1) == 4 * kBlock);
    CHECK(climb_on(climb, slope, 1) == 8 * kBlock);
  }
  CHECK(climb_on(climb, slope, 5) == 8 * kBlock);
  CHECK(climb_on(climb, slope, 150) >= 16 * kBlock);
}

TEST_CASE("less is left again where it costs a round trip per block, then more is tried") {
  InflightClimb climb(kBlock);
  const Storage remote = [](double inflight) { return inflight < 40e6 ? 2.7e8 : 3e8; };
  CHECK(climb_on(climb, remote, 1) == 2 * kBlock);
  CHECK(climb_on(climb, remote, 1) == 8 * kBlock);
  CHECK(climb_on(climb, remote, 1) == 4 * kBlock);
}

TEST_CASE("a slow device is judged after half a second") {
  const InflightClimb climb(kBlock);
  CHECK_FALSE(climb.is_epoch(climb.bytes(), 0.4));
  CHECK(climb.is_epoch(climb.bytes(), 0.6));
  CHECK_FALSE(climb.is_epoch(climb.bytes() - 1, 60.0));
  CHECK(climb.is_epoch(climb.epoch_bytes(), 0.1));
}

TEST_CASE("it finds the new rate of storage that became faster") {
  InflightClimb climb(kBlock);
  climb_on(climb, link(3e8, 0.01), 30);
  const auto before = climb.bytes();
  climb_on(climb, link(5e9, 0.05), 60);
  CHECK(climb.bytes() > before);
}

TEST_CASE("with large blocks, too, it begins with four and tries two") {
  for (const std::uint64_t block : {16 * kMiB, 64 * kMiB, 256 * kMiB}) {
    InflightClimb climb(block);
    CHECK(climb.bytes() == 4 * block);
    climb.epoch(climb.epoch_bytes(), 1.0);
    CHECK(climb.bytes() == 2 * block);
  }
}

TEST_CASE("storage limits where more in flight brought no more") {
  InflightClimb climb(kBlock);
  CHECK(climb.limit() == Limit::unknown);
  climb_on(climb, link(3e8, 0.001), 1);
  CHECK(climb.limit() == Limit::unknown);  // nothing to compare it with
  climb_on(climb, link(3e8, 0.001), 1);
  CHECK(climb.limit() == Limit::storage);  // full with half as much
  climb_on(climb, link(3e8, 0.001), 100);
  CHECK(climb.limit() == Limit::storage);
}

TEST_CASE("storage limits where more in flight is slower") {
  InflightClimb climb(kBlock);
  const Storage disk = [](double inflight) { return 1.5e8 / (1 + inflight / (16.0 * kMiB)); };
  climb_on(climb, disk, 2);
  CHECK(climb.limit() == Limit::storage);
  climb_on(climb, disk, 100);
  CHECK(climb.limit() == Limit::storage);
}

TEST_CASE("nothing is known to limit as long as more brings more") {
  InflightClimb climb(kBlock);
  const Storage wide = link(1e12, 0.1);
  while (climb.bytes() < kMaxInflightBytes) {
    climb_on(climb, wide, 1);
    CHECK(climb.limit() == Limit::unknown);
  }
  climb_on(climb, wide, 50);  // no more can be tried, and half as much was worse
  CHECK(climb.limit() == Limit::unknown);

  InflightClimb other(kBlock);
  climb_on(other, link(2.5e9, 0.1), 4);
  CHECK(other.limit() == Limit::unknown);
  climb_on(other, link(2.5e9, 0.1), 6);
  CHECK(other.limit() == Limit::storage);
}

TEST_CASE("storage that became faster limits no more") {
  InflightClimb climb(kBlock);
  climb_on(climb, link(3e8, 0.01), 30);
  CHECK(climb.limit() == Limit::storage);
  while (climb.bytes() < kMaxInflightBytes) climb_on(climb, link(1e12, 0.05), 1);
  CHECK(climb.limit() == Limit::unknown);
}

TEST_CASE("one gain that may be noise changes nothing, three do") {
  InflightClimb climb(kBlock);
  climb.resume(4 * kBlock, Limit::storage);
  const Storage slope = [](double inflight) {
    return 1e8 * std::pow(1.2, std::log2(inflight / (16.0 * kMiB)));
  };
  climb_on(climb, slope, 6);  // less, then more three times, each after what was before
  CHECK(climb.bytes() == 8 * kBlock);
  CHECK(climb.limit() == Limit::storage);
  climb_on(climb, slope, 1);
  CHECK(climb.limit() == Limit::unknown);
}

TEST_CASE("threads limit where more was let be in flight, and was not") {
  const auto climb_with = [](std::uint64_t threads, const Storage& storage, int epochs) {
    InflightClimb climb(kBlock);
    for (int i = 0; i < epochs; ++i) {
      const std::uint64_t used = std::min(climb.bytes(), threads * kBlock);
      const double rate = storage(static_cast<double>(used));
      climb.epoch(climb.epoch_bytes(), static_cast<double>(climb.epoch_bytes()) / rate,
                  used > climb.bytes() / 2);
    }
    return climb.limit();
  };
  // Two compare nothing: they do not fill what it begins with.
  CHECK(climb_with(2, link(3e8, 0.001), 2) == Limit::threads);
  CHECK(climb_with(2, link(3e8, 0.001), 100) == Limit::threads);
  // Four fill that, and it is better than half as much; twice as much they do not fill.
  CHECK(climb_with(4, link(2.5e9, 0.1), 2) == Limit::unknown);
  CHECK(climb_with(4, link(2.5e9, 0.1), 3) == Limit::threads);
  CHECK(climb_with(4, link(2.5e9, 0.1), 100) == Limit::threads);
  CHECK(climb_with(32, link(2.5e9, 0.1), 100) == Limit::storage);
  // What four have found stays, although they cannot try more.
  CHECK(climb_with(4, link(3e8, 0.001), 100) == Limit::storage);
}

TEST_CASE("what was found before is gone on from, and nothing is found of what was set") {
  InflightClimb climb(kBlock);
  climb.resume(64 * kMiB, Limit::storage);
  CHECK(climb.limit() == Limit::storage);
  climb_on(climb, link(3e8, 0.001), 1);
  CHECK(climb.limit() == Limit::storage);
  InflightClimb fixed(kBlock, 64 * kMiB);
  climb_on(fixed, link(3e8, 0.001), 50);
  CHECK(fixed.limit() == Limit::unknown);
}

TEST_CASE("a new watcher goes on from where the last one was") {
  InflightClimb climb(kBlock);
  climb.resume(512 * kMiB);
  CHECK(climb.bytes() == 512 * kMiB);
  InflightClimb fixed(kBlock, 64 * kMiB);
  fixed.resume(512 * kMiB);
  CHECK(fixed.bytes() == 64 * kMiB);
}

TEST_SUITE_END();
