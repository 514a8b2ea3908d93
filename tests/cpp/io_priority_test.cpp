// io_priority: of the thread that asks, and of those that it starts from then on.
#include "node/io_priority.h"

#include <doctest/doctest.h>

#include <cerrno>
#include <string>
#include <thread>

TEST_SUITE_BEGIN("io_priority");

TEST_CASE("a thread and those that it starts read last; the others do not") {
  using namespace shardahead;
  const std::string before = io_priority_class();
  if (before == "unknown") {
    MESSAGE("skipped: the kernel tells no priority of input and output");
    return;
  }
  int result = 0;
  std::string own;
  std::string child;
  std::thread([&] {
    result = lower_io_priority();
    own = io_priority_class();
    std::thread([&] { child = io_priority_class(); }).join();
  }).join();
  CHECK(result == 0);
  CHECK(own == "idle");
  CHECK(child == own);
  CHECK(io_priority_class() == before);
}

TEST_SUITE_END();
