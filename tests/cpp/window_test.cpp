// window: the decisions alone; engine_window_test.cpp has the threads.
#include "plan/window.h"

#include <doctest/doctest.h>

#include "base/byte_range.h"

using namespace shardahead;
using namespace std::chrono_literals;

TEST_SUITE_BEGIN("window");

namespace {

constexpr auto kNoOne = Follows::no_one;
constexpr auto kReleasing = Follows::releasing_consumer;
constexpr auto kHolding = Follows::holding_consumer;
constexpr auto kStart = ConsumerWatch::Time{} + 1h;

// What is in force after one look at the budget.
Window window_of(std::optional<std::uint64_t> given, std::uint64_t wanted,
                 std::optional<std::uint64_t> budget, Follows follows) {
  WindowControl control(given, wanted, follows);
  control.set_budget(budget, kStart);
  return control.window();
}

}  // namespace

TEST_CASE("of two consumers the slower one counts, and what both have released") {
  const ConsumerPosition fast = {100, 120, 10};
  const ConsumerPosition slow = {50, 60, 40};
  CHECK(slower_of(fast, slow) == ConsumerPosition{50, 60, 10});
  CHECK(slower_of(slow, fast) == ConsumerPosition{50, 60, 10});
}

TEST_CASE("a consumer that stands still is not waited for until it moves") {
  ConsumerWatch watch;
  CHECK(watch.moves({1, 2, 0}, kStart));
  CHECK(watch.moves({1, 2, 0}, kStart + 2499ms));
  CHECK_FALSE(watch.moves({1, 2, 0}, kStart + 2500ms));
  CHECK(watch.moves({2, 3, 1}, kStart + 1min));
  CHECK(watch.moves({2, 3, 1}, kStart + 1min + 2s));
  CHECK_FALSE(watch.moves({2, 3, 1}, kStart + 1min + 3s));
}

TEST_CASE("what fits, or is not known not to, needs no window and nothing is dropped") {
  for (const Follows follows : {kNoOne, kReleasing, kHolding}) {
    for (const auto budget : {std::optional<std::uint64_t>{}, {100}, {1000}}) {
      const Window window = window_of(std::nullopt, 100, budget, follows);
      CHECK(window.ahead_bytes == 0);
      CHECK_FALSE(window.keep_bytes);
      CHECK(window.source == WindowSource::none);
    }
  }
}

TEST_CASE("without a consumer the budget is filled, with one a quarter is ahead of it") {
  const Window alone = window_of(std::nullopt, 1001, 1000, kNoOne);
  CHECK(alone.ahead_bytes == 1000);
  CHECK_FALSE(alone.keep_bytes);
  CHECK(alone.source == WindowSource::memory);
  const Window followed = window_of(std::nullopt, 1001, 1000, kReleasing);
  CHECK(followed.ahead_bytes == 250);
  CHECK(followed.keep_bytes == 250);
  CHECK(followed.source == WindowSource::memory);
}

TEST_CASE("ahead of a consumer that may hold what it has passed the window is small") {
  const Window window = window_of(std::nullopt, 1001, 1000, kHolding);
  CHECK(window.ahead_bytes == 62);
  CHECK(window.keep_bytes == 250);
  CHECK(window_of(std::nullopt, 100, 1, kHolding).ahead_bytes == 1);
}

TEST_CASE("a budget of nothing still lets the prefetch begin") {
  CHECK(window_of(std::nullopt, 100, 0, kNoOne).ahead_bytes == 1);
  CHECK(window_of(std::nullopt, 100, 0, kReleasing).ahead_bytes == 1);
}

TEST_CASE("a window that was given is the window, and memory decides what is dropped") {
  const Window fits = window_of(500, 1000, 1000, kReleasing);
  CHECK(fits.ahead_bytes == 500);
  CHECK_FALSE(fits.keep_bytes);
  CHECK(fits.source == WindowSource::given);
  CHECK(window_of(500, 1001, 1000, kReleasing).keep_bytes == 250);
  CHECK(window_of(0, 1001, 1000, kReleasing).ahead_bytes == 0);
  CHECK(window_of(0, 1001, 1000, kReleasing).source == WindowSource::none);
  CHECK(window_of(500, 1001, 1000, kNoOne).ahead_bytes == 500);
}

TEST_CASE("the window follows the budget") {
  WindowControl control(std::nullopt, 1000, kReleasing);
  control.set_budget(2000, kStart);
  CHECK(control.window().ahead_bytes == 0);
  control.set_budget(800, kStart + 1s);
  CHECK(control.window().ahead_bytes == 200);
  control.set_budget(400, kStart + 2s);
  CHECK(control.window().ahead_bytes == 100);
  control.set_budget(std::nullopt, kStart + 3s);
  CHECK(control.window().ahead_bytes == 0);
}

TEST_CASE("what is evicted too early halves the window, once a second, and time doubles it") {
  WindowControl control(std::nullopt, 8 * kGiB, kReleasing);
  control.set_budget(4 * kGiB, kStart);
  control.add_evicted(kMiB, kStart);
  CHECK(control.window().ahead_bytes == 512 * kMiB);
  CHECK(control.window().keep_bytes == 512 * kMiB);
  control.add_evicted(kMiB, kStart + 999ms);
  CHECK(control.window().ahead_bytes == 512 * kMiB);
  control.add_evicted(kMiB, kStart + 1s);
  CHECK(control.window().ahead_bytes == 256 * kMiB);
  control.set_budget(4 * kGiB, kStart + 10s);
  CHECK(control.window().ahead_bytes == 256 * kMiB);
  control.set_budget(4 * kGiB, kStart + 11s);
  CHECK(control.window().ahead_bytes == 512 * kMiB);
}

TEST_CASE("single pages that are evicted are no sign, many are") {
  WindowControl control(std::nullopt, 8 * kGiB, kReleasing);
  control.set_budget(4 * kGiB, kStart);
  for (int page = 0; page < 255; ++page) control.add_evicted(4 * kKiB, kStart);
  CHECK(control.window().ahead_bytes == 1 * kGiB);
  control.add_evicted(4 * kKiB, kStart);
  CHECK(control.window().ahead_bytes == 512 * kMiB);
}

TEST_CASE("evictions show that memory is short where the budget does not, and never end it all") {
  WindowControl control(std::nullopt, 2 * kGiB, kReleasing);
  control.set_budget(std::nullopt, kStart);
  for (auto at = kStart; at < kStart + 20s; at += 1s) control.add_evicted(kMiB, at);
  CHECK(control.window().source == WindowSource::memory);
  CHECK(control.window().ahead_bytes == 32 * kMiB);
}

TEST_SUITE_END();
