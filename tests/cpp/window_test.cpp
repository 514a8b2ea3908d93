// window: the arithmetic alone; engine_window_test.cpp has the threads.
#include "window.h"

#include <doctest/doctest.h>

#include <limits>

using namespace shardahead;

TEST_SUITE_BEGIN("window");

namespace {
constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
}

TEST_CASE("no window is no limit") { CHECK(inside_window(kMost, 0, {})); }

TEST_CASE("a block is inside when it starts before the end") {
  CHECK(inside_window(0, 100, {}));
  CHECK(inside_window(99, 100, {}));
  CHECK_FALSE(inside_window(100, 100, {}));
  CHECK(inside_window(100, 100, {1, 0}));
}

TEST_CASE("the window reaches what is needed next, and no further") {
  CHECK(inside_window(499, 100, {0, 500}));
  CHECK_FALSE(inside_window(500, 100, {0, 500}));
}

TEST_CASE("what was consumed is never outside") { CHECK(inside_window(0, 100, {1000, 0})); }

TEST_CASE("very large positions and windows do not wrap around") {
  CHECK(inside_window(5, kMost, {100, 0}));
  CHECK(inside_window(500, kMost, {100, 0}));
  CHECK(inside_window(500, 100, {kMost, 0}));
  CHECK(inside_window(500, 100, {kMost, kMost}));
}

TEST_SUITE_END();
