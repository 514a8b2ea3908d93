// virtual_threads: order, waiting, death and burial.
#include "virtual_threads.h"

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <system_error>

using namespace shardahead;
using namespace shardahead::testing;
using std::chrono::hours;
using std::chrono::seconds;

TEST_SUITE_BEGIN("virtual_threads");

namespace {

constexpr auto kEnd = Runtime::Time(hours(1));

VirtualThreads::Duration since_start(const VirtualThreads& threads) {
  return threads.now().time_since_epoch();
}

}  // namespace

TEST_CASE("whoever is due first runs, and the clock jumps there") {
  VirtualThreads threads(1, [](std::uint32_t) {});
  std::string order;
  const auto thread = [&](char name, seconds first, seconds second) {
    threads.start(0, [&threads, &order, name, first, second] {
      threads.sleep(first);
      order += name;
      threads.sleep(second);
      order += name;
    });
  };
  thread('a', seconds(10), seconds(30));
  thread('b', seconds(20), seconds(5));
  CHECK(threads.run(kEnd));
  CHECK(order == "abba");
  CHECK(since_start(threads) >= seconds(40));
  CHECK(since_start(threads) < seconds(41));
}

TEST_CASE("a ring ends a wait, and so does time") {
  VirtualThreads threads(1, [](std::uint32_t) {});
  DoorbellWord word{0};
  VirtualThreads::Duration rung{};
  VirtualThreads::Duration timed_out{};
  threads.start(0, [&] {
    threads.wait_for_ring(word, 0, hours(1));
    rung = since_start(threads);
    threads.wait_for_ring(word, 1, seconds(7));
    timed_out = since_start(threads);
  });
  threads.start(1, [&] {
    threads.sleep(seconds(3));
    ring(word);
  });
  CHECK(threads.run(kEnd));
  CHECK(rung >= seconds(3));
  CHECK(rung < seconds(4));
  CHECK(timed_out - rung == seconds(7));
}

TEST_CASE("of several that wait one is rung, or none, and who comes later sees every ring") {
  VirtualThreads threads(1, [](std::uint32_t) {});
  DoorbellWord word{0};
  std::string order;
  const auto wait = [&](char name, std::uint32_t seen) {
    threads.wait_for_ring(word, seen, seconds(100));
    order += since_start(threads) < seconds(100) ? name : '-';
  };
  for (int i = 0; i < 3; ++i) threads.start(0, [&] { wait('a', 0); });
  threads.start(1, [&] {
    threads.sleep(seconds(1));
    threads.ring_unheard(word);
    threads.sleep(seconds(1));
    order += '1';
    threads.ring_one(word);
    threads.sleep(seconds(1));
    order += '2';
    wait('b', 1);
    threads.ring_one(word);
  });
  CHECK(threads.run(kEnd));
  CHECK(order == "1a2ba-");
}

TEST_CASE("the stopped look up when they go on, however long they wait, and sleep on") {
  VirtualThreads threads(1, [](std::uint32_t) {});
  const DoorbellWord word{0};
  VirtualThreads::Duration looked{};
  VirtualThreads::Duration slept{};
  threads.start(0, [&] {
    threads.wait_for_ring(word, 0, hours(24));
    looked = since_start(threads);
  });
  threads.start(0, [&] {
    threads.sleep(seconds(30));
    slept = since_start(threads);
  });
  threads.start(1, [&] {
    threads.sleep(seconds(1));
    threads.hold(0, threads.now() + seconds(10));
  });
  CHECK(threads.run(kEnd));
  CHECK(looked >= seconds(11));
  CHECK(looked < seconds(12));
  CHECK(slept >= seconds(30));
}

TEST_CASE("the dead stop where they are, and give back what they hold when all are buried") {
  VirtualThreads* all = nullptr;
  VirtualThreads threads(1, [&](std::uint32_t rank) {
    if (rank == 1 && since_start(*all) > seconds(2)) all->kill(1);
  });
  all = &threads;
  const auto held = std::make_shared<int>(0);
  int steps = 0;
  threads.start(1, [&threads, &steps, kept = held] {
    while (!threads.burying()) {
      threads.sleep(seconds(1));
      ++steps;
    }
  });
  CHECK(threads.run(kEnd));
  CHECK(steps == 2);
  CHECK(held.use_count() == 2);
  CHECK(threads.bury());
  CHECK(held.use_count() == 1);
}

TEST_CASE("what never ends is stopped by the end of time") {
  VirtualThreads threads(1, [](std::uint32_t) {});
  threads.start(0, [&] {
    while (!threads.burying()) threads.sleep(seconds(1));
  });
  CHECK_FALSE(threads.run(kEnd));
  CHECK(threads.bury());
}

TEST_CASE("an exception passes through one thread while another handles its own") {
  VirtualThreads threads(1, [](std::uint32_t) {});
  std::string caught;
  const auto thrower = [&](const std::string& name, seconds pause) {
    return [&threads, &caught, name, pause] {
      try {
        throw std::runtime_error(name);
      } catch (const std::runtime_error& error) {
        threads.sleep(pause);
        caught += error.what();
        try {
          throw;
        } catch (const std::runtime_error& again) {
          caught += again.what();
        }
      }
    };
  };
  threads.start(0, thrower("a", seconds(2)));
  threads.start(0, thrower("b", seconds(3)));
  CHECK(threads.run(kEnd));
  CHECK(caught == "aabb");
}

TEST_CASE("a rank has no more threads than it may have") {
  VirtualThreads threads(1, [](std::uint32_t) {});
  RankRuntime runtime(threads, 0, 1);
  bool ran = false;
  runtime.start_thread("first", [&] { ran = true; });
  CHECK_THROWS_AS(runtime.start_thread("second", [] {}), std::system_error);
  CHECK(threads.run(kEnd));
  CHECK(ran);
}

TEST_SUITE_END();
