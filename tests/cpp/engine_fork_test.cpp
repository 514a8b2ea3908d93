// engine: in a forked child, which has the memory of the engine and none of its threads.
#include <doctest/doctest.h>

#include "board_fixture.h"
#include "engine/engine.h"
#include "fork_support.h"
#include "node/mapped_file.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("engine_fork");

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
    if (engine->make_resident(1, {0, 1 * kMiB})) return 5;
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

namespace {

// An engine of two threads with a consumer, on a board in `folder`.
std::unique_ptr<Engine> start_on_board(const SimulatedCheckpoint& checkpoint,
                                       const TemporaryFolder& folder) {
  return std::make_unique<Engine>(checkpoint.io, checkpoint.plan, checkpoint.files,
                                  join(folder, checkpoint.plan),
                                  EngineOptions{.threads = 2, .consumer = true});
}

}  // namespace

TEST_CASE("a child may drop a consumer's prefetch at any stage, and its parent keeps the board") {
  const TemporaryFolder folder;
  SimulatedCheckpoint checkpoint({1 * kMiB, 1 * kMiB});
  checkpoint.open({64 * kKiB, 64 * kKiB, 0});
  const auto drop_in_child = [](std::unique_ptr<Engine>& engine) {
    return exit_status_of_child([&] {
      engine->cancel();
      engine->end_consumer();
      engine.reset();
      return 0;
    });
  };
  checkpoint.io.add({.kind = FaultKind::stall, .path_suffix = "0.shard"});
  auto engine = start_on_board(checkpoint, folder);
  REQUIRE(checkpoint.io.wait_until_stalled(2, kHangBound));
  CHECK(drop_in_child(engine) == 0);
  checkpoint.io.release_stalled();
  REQUIRE(engine->wait(kHangBound));
  CHECK(drop_in_child(engine) == 0);  // the workers are done, and the consumer is not
  engine->consumed(kMiB, kMiB);
  CHECK(drop_in_child(engine) == 0);
  CHECK(::access(folder.path(kName).c_str(), F_OK) == 0);
  CHECK(engine->end_consumer());
  CHECK(drop_in_child(engine) == 0);
  engine->cancel();
  CHECK(::access(folder.path(kName).c_str(), F_OK) != 0);
  CHECK(drop_in_child(engine) == 0);
  CHECK(engine->report().failed_bytes == 0);
}

TEST_CASE("a child lets go of bytes that its parent holds, and the parent still holds them") {
  const TemporaryFolder folder;
  const std::string path = folder.write("file", 64 * kKiB);
  auto consumption = std::make_shared<Consumption>();
  const auto mapped = std::make_shared<MappedFile>(*File::open(system_file_io(), path));
  auto held = std::make_unique<HeldBytes>(mapped, ByteRange{0, 4096}, consumption, 0);
  CHECK(exit_status_of_child([&] {
          held.reset();
          return consumption->not_held({0, 4096}).empty() ? 0 : 1;
        }) == 0);
  CHECK(consumption->not_held({0, 4096}).empty());
  held.reset();
  CHECK(consumption->not_held({0, 4096}).size() == 1);
}

TEST_SUITE_END();
