// window: the arithmetic alone; engine_window_test.cpp has the threads.
#include "window.h"

#include <doctest/doctest.h>

#include <limits>

using namespace shardahead;

TEST_SUITE_BEGIN("window");

namespace {
constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
}

TEST_CASE("no window has no end") { CHECK(window_end(0, {}) == kMost); }

TEST_CASE("the window ends its length after what was consumed") {
  CHECK(window_end(100, {}) == 100);
  CHECK(window_end(100, {1, 0}) == 101);
}

TEST_CASE("the window reaches what is needed next, and no further") {
  CHECK(window_end(100, {0, 500}) == 500);
  CHECK(window_end(100, {450, 500}) == 550);
}

TEST_CASE("very large positions and windows do not wrap around") {
  CHECK(window_end(kMost, {100, 0}) == kMost);
  CHECK(window_end(100, {kMost, 0}) == kMost);
  CHECK(window_end(100, {kMost, kMost}) == kMost);
}

TEST_SUITE_END();
