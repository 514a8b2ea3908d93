// engine: in a forked child, which has the memory of the engine and none of its threads.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("engine_fork");

namespace {

// Runs `body` in a child and gives its exit status; -1 where it hung or crashed. The child leaves
// without destructors or exit handlers: those are the parent's.
template <typename Body>
int exit_status_of_child(Body body) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::alarm(static_cast<unsigned>(kHangBound.count()));
    ::_exit(body());
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TEST_CASE("a child neither waits for the parent's threads nor takes their mutexes") {
  SimulatedCheckpoint checkpoint({1 * kMiB, 1 * kMiB});
  checkpoint.open({64 * kKiB, 64 * kKiB, 0});
  checkpoint.io.add({.kind = FaultKind::stall, .path_suffix = "0.shard"});
  auto engine = checkpoint.start({.threads = 2, .window_bytes = kMiB, .consumer = true});
  REQUIRE(checkpoint.io.wait_until_stalled(2, kHangBound));
  const int status = exit_status_of_child([&] {
    if (!engine->wait(std::chrono::hours(1))) return 1;
    if (!engine->done()) return 2;
    engine->cancel();
    engine->consumed(kMiB, kMiB);
    if (engine->progress().planned_bytes != 0) return 3;
    if (engine->report().done) return 4;
    if (engine->fetch_now(1, {0, 1 * kMiB})) return 5;
    engine.reset();
    return 0;
  });
  CHECK(status == 0);
  CHECK_FALSE(engine->cancelled());
  CHECK_FALSE(engine->done());
  checkpoint.io.release_stalled();
  engine->consumed(2 * kMiB, 2 * kMiB);
  CHECK(engine->wait(kHangBound));
  CHECK(checkpoint.resident_bytes() == 2 * kMiB);
}

TEST_CASE("a child of a parent whose prefetch is done can drop it") {
  SimulatedCheckpoint checkpoint({1 * kMiB});
  checkpoint.open();
  auto engine = checkpoint.start({});
  REQUIRE(engine->wait(kHangBound));
  CHECK(exit_status_of_child([&] {
          engine.reset();
          return 0;
        }) == 0);
  CHECK(engine->report().done);
}

TEST_SUITE_END();
