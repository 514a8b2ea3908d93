// limited_by: what is said to have kept a load from being faster.
#include "plan/limited_by.h"

#include <doctest/doctest.h>

#include <initializer_list>

using namespace shardahead;

TEST_SUITE_BEGIN("limited_by");

namespace {

// 300 MB/s for 10 s, of which hardly anything was computing.
constexpr LoadSoFar kLoad = {
    .found = Limit::storage, .read_bytes = 3000000000, .seconds = 10, .cpu_seconds = 1};

LoadSoFar with_limit(std::uint64_t bytes_per_s) {
  LoadSoFar load = kLoad;
  load.rate_limit_bytes_per_s = bytes_per_s;
  load.burst_bytes = 50000000;
  return load;
}

}  // namespace

TEST_CASE("what was found of the node holds where the load says nothing else") {
  for (const Limit found :
       {Limit::unknown, Limit::storage, Limit::threads, Limit::inflight_bytes}) {
    LoadSoFar load = kLoad;
    load.found = found;
    CHECK(limited_by(load) == found);
  }
}

TEST_CASE("a rate limit counts once it is reached, whatever else was found") {
  CHECK(limited_by(with_limit(300000000)) == Limit::rate_limit);
  CHECK(limited_by(with_limit(330000000)) == Limit::rate_limit);
  CHECK(limited_by(with_limit(340000000)) == Limit::storage);
  LoadSoFar threads = with_limit(300000000);
  threads.found = Limit::threads;
  CHECK(limited_by(threads) == Limit::rate_limit);
}

TEST_CASE("what came as one burst was not held up") {
  LoadSoFar load = with_limit(300000000);
  load.found = Limit::unknown;
  load.read_bytes = load.burst_bytes;
  load.seconds = 0.01;
  CHECK(limited_by(load) == Limit::unknown);
  ++load.read_bytes;
  CHECK(limited_by(load) == Limit::rate_limit);
}

TEST_CASE("who waits for a consumer has few blocks in hand, with however many threads") {
  LoadSoFar load = kLoad;
  load.found = Limit::threads;
  load.follows = true;
  CHECK(limited_by(load) == Limit::unknown);
  load.found = Limit::storage;
  CHECK(limited_by(load) == Limit::storage);
}

TEST_CASE("storage does not limit those who compute for half of the time") {
  LoadSoFar load = kLoad;
  load.cpu_seconds = 5;
  CHECK(limited_by(load) == Limit::storage);
  load.cpu_seconds = 5.1;
  CHECK(limited_by(load) == Limit::unknown);
}

TEST_CASE("nothing limits a load that has read nothing") {
  LoadSoFar load = kLoad;
  load.read_bytes = 0;
  CHECK(limited_by(load) == Limit::unknown);
  load = kLoad;
  load.seconds = 0;
  CHECK(limited_by(load) == Limit::unknown);
}

TEST_SUITE_END();
