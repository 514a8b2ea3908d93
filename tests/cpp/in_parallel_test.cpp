// in_parallel: each call once, as many at a time as asked for, on the calling thread where need be.
#include "base/in_parallel.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <new>
#include <thread>
#include <vector>

#include "test_support.h"

using namespace shardahead;

TEST_SUITE_BEGIN("in_parallel");

TEST_CASE("each call is made once, whatever the number of threads") {
  for (const std::size_t count : {0UL, 1UL, 7UL, 1000UL}) {
    for (const std::uint32_t threads : {0U, 1U, 3U, 64U}) {
      CAPTURE(count);
      CAPTURE(threads);
      std::vector<int> calls(count);
      in_parallel(count, threads, [&](std::size_t i) { ++calls[i]; });
      CHECK(std::ranges::all_of(calls, [](int made) { return made == 1; }));
    }
  }
}

TEST_CASE("calls that wait do so together") {
  constexpr std::uint32_t kThreads = 8;
  std::barrier<> together(kThreads);  // fewer would wait for ever
  in_parallel(std::size_t{kThreads} * 10, kThreads,
              [&](std::size_t) { together.arrive_and_wait(); });
}

TEST_CASE("few calls are made by the thread that asks for them") {
  const auto here = std::this_thread::get_id();
  in_parallel(4, 16, [&](std::size_t) { CHECK(std::this_thread::get_id() == here); });
}

TEST_CASE("what a call throws comes out once, when all that were under way have ended") {
  for (const std::uint32_t threads : {1U, 4U}) {
    std::atomic<int> under_way{0};
    CHECK_THROWS_AS(in_parallel(1000, threads,
                                [&](std::size_t i) {
                                  ++under_way;
                                  if (i % 100 == 7) {
                                    --under_way;
                                    throw std::bad_alloc();
                                  }
                                  --under_way;
                                }),
                    std::bad_alloc);
    CHECK(under_way == 0);
  }
}

TEST_SUITE_END();
