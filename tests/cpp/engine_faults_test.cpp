// engine: bad files, servers that do not answer, and cancelling.
#include <doctest/doctest.h>

#include "engine/engine.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("engine_faults");

namespace {

constexpr PlanOptions kSmallBlocks{256 * kKiB, 64 * kKiB, 2};

void check_sum(const Report& report) {
  CHECK(report.resident_bytes + report.read_bytes + report.shared_bytes + report.failed_bytes +
            report.left_out_bytes ==
        report.planned_bytes);
  CHECK(report.lost_bytes <= report.read_bytes);
}

}  // namespace

TEST_CASE("one file that cannot be read: the others complete, and the figures add up") {
  for (const Strategy strategy : kStrategies) {
    for (const std::uint32_t threads : {1U, 8U}) {
      CAPTURE(std::string(to_string(strategy)));
      CAPTURE(threads);
      SimulatedCheckpoint checkpoint({2 * kMiB, 3 * kMiB, 1 * kMiB});
      checkpoint.open(kSmallBlocks);
      checkpoint.io.add({.path_suffix = "1.shard"});
      const auto engine = checkpoint.start({.strategy = strategy, .threads = threads});
      REQUIRE(engine->wait(kHangBound));
      const Report report = engine->report();
      check_sum(report);
      CHECK(report.failed_bytes == 3 * kMiB);
      CHECK(report.left_out_bytes == 0);
      CHECK(report.error_count >= 12);  // one for each block
      CHECK(report.errors.front().path == "1.shard");
      CHECK(report.errors.front().errno_value == EIO);
      CHECK(checkpoint.kernel.resident_bytes("0.shard") == 2 * kMiB);
      CHECK(checkpoint.kernel.resident_bytes("2.shard") == 1 * kMiB);
    }
  }
}

TEST_CASE("a file that can no longer be opened fails block by block") {
  SimulatedCheckpoint checkpoint({1 * kMiB, 1 * kMiB, 1 * kMiB});
  checkpoint.open(kSmallBlocks, 1);
  checkpoint.io.add(
      {.operation = Operation::open, .path_suffix = "1.shard", .errno_value = ESTALE});
  const auto engine = checkpoint.start({.threads = 2});
  REQUIRE(engine->wait(kHangBound));
  const Report report = engine->report();
  check_sum(report);
  CHECK(report.failed_bytes == 1 * kMiB);
  CHECK(report.errors.front().operation == "open");
  CHECK(report.errors.front().errno_value == ESTALE);
  CHECK(report.resident_bytes + report.read_bytes == 2 * kMiB);
}

TEST_CASE("a file that is replaced by a shorter one while closed is not left out silently") {
  SimulatedCheckpoint checkpoint({1 * kMiB, 1 * kMiB});
  checkpoint.open(kSmallBlocks, 1);
  checkpoint.kernel.truncate("1.shard", 100 * kKiB);
  const auto engine = checkpoint.start({.threads = 1});
  REQUIRE(engine->wait(kHangBound));
  const Report report = engine->report();
  check_sum(report);
  CHECK(report.left_out_bytes == 0);
  CHECK(report.failed_bytes >= 1 * kMiB - 100 * kKiB);
  REQUIRE(report.error_count > 0);
  CHECK(report.errors.front().errno_value == ENODATA);
}

TEST_CASE("all errors are counted, and so many are kept") {
  SimulatedCheckpoint checkpoint(std::vector<std::uint64_t>(100, 5000));
  checkpoint.open(kSmallBlocks, 200);
  checkpoint.io.add({});
  const auto engine = checkpoint.start({.threads = 4});
  REQUIRE(engine->wait(kHangBound));
  CHECK(engine->report().error_count == 100);
  CHECK(engine->report().errors.size() == Report::kMaxErrors);
  CHECK(engine->report().failed_bytes == 100 * 5000);
}

TEST_CASE("cancel and the destructor return while workers are stalled, which end when released") {
  SimulatedCheckpoint checkpoint({4 * kMiB, 4 * kMiB});
  checkpoint.open(kSmallBlocks);
  checkpoint.io.add({.kind = FaultKind::stall});
  auto engine = checkpoint.start({.threads = 3});
  REQUIRE(checkpoint.io.wait_until_stalled(3, kHangBound));
  CHECK_FALSE(engine->wait(std::chrono::nanoseconds(0)));
  CHECK_FALSE(engine->wait(std::chrono::milliseconds(1)));
  CHECK_FALSE(engine->done());
  engine->cancel();
  CHECK(engine->cancelled());
  CHECK_FALSE(engine->wait(std::chrono::milliseconds(1)));
  CHECK(engine->report().cancelled);
  CHECK_FALSE(engine->report().done);
  engine.reset();
  checkpoint.files.reset();
  CHECK(checkpoint.kernel.open_descriptors() == 2);  // the workers still use them
  checkpoint.io.release_stalled();
  CHECK(checkpoint.kernel.wait_until_closed(kHangBound));
}

TEST_CASE("what a cancelled prefetch did not come to is left out, not failed") {
  for (const Strategy strategy : kStrategies) {
    CAPTURE(std::string(to_string(strategy)));
    SimulatedCheckpoint checkpoint({4 * kMiB});
    checkpoint.open(kSmallBlocks);
    checkpoint.io.add({.kind = FaultKind::stall});
    const auto engine = checkpoint.start({.strategy = strategy, .threads = 2});
    REQUIRE(checkpoint.io.wait_until_stalled(2, kHangBound));
    engine->cancel();
    checkpoint.io.release_stalled();
    REQUIRE(engine->wait(kHangBound));
    const Report report = engine->report();
    check_sum(report);
    CHECK(report.cancelled);
    CHECK(report.failed_bytes == 0);
    CHECK(report.error_count == 0);
    CHECK(report.left_out_bytes >= 4 * kMiB - 4 * 64 * kKiB);
  }
}

TEST_CASE("cancelling what is done changes nothing") {
  SimulatedCheckpoint checkpoint({1 * kMiB});
  checkpoint.open(kSmallBlocks);
  const auto engine = checkpoint.start({});
  REQUIRE(engine->wait(kHangBound));
  engine->cancel();
  CHECK_FALSE(engine->cancelled());
  CHECK_FALSE(engine->report().cancelled);
}

TEST_CASE("a worker that is stalled in opening a file does not hold up the others") {
  SimulatedCheckpoint checkpoint({1 * kMiB, 1 * kMiB, 1 * kMiB});
  checkpoint.open(kSmallBlocks, 1);
  checkpoint.io.add(
      {.operation = Operation::open, .kind = FaultKind::stall, .path_suffix = "1.shard"});
  const auto engine = checkpoint.start({.threads = 16});
  const auto stalled = [&] {
    return checkpoint.kernel.wait_until_requested("2.shard", 0, kHangBound);
  };
  CHECK(stalled());
  checkpoint.io.release_stalled();
  REQUIRE(engine->wait(kHangBound));
  CHECK(checkpoint.resident_bytes() == 3 * kMiB);
}

TEST_CASE("make_resident works beside stalled workers, and after cancelling") {
  SimulatedCheckpoint checkpoint({1 * kMiB, 20 * kMiB});
  checkpoint.open(kSmallBlocks);
  checkpoint.io.add({.kind = FaultKind::stall, .path_suffix = "0.shard"});
  const auto engine = checkpoint.start({.threads = 1});
  REQUIRE(checkpoint.io.wait_until_stalled(1, kHangBound));
  CHECK_FALSE(engine->make_resident(1, {0, 10 * kMiB}));
  CHECK(checkpoint.kernel.resident_bytes("1.shard") >= 10 * kMiB);
  engine->cancel();
  CHECK_FALSE(engine->make_resident(1, {10 * kMiB, 10 * kMiB}));
  CHECK(checkpoint.kernel.resident_bytes("1.shard") == 20 * kMiB);
  CHECK(checkpoint.kernel.most_loads_of_a_page() <= 1);
  checkpoint.io.release_stalled();
  REQUIRE(engine->wait(kHangBound));
  CHECK_FALSE(engine->make_resident(0, {0, 1 * kMiB}));
  CHECK(checkpoint.kernel.resident_bytes("0.shard") == 1 * kMiB);
}

TEST_CASE("of a part what cannot be read between its runs is no error, in a run it is") {
  SimulatedCheckpoint checkpoint({4 * kMiB});
  const std::uint64_t page = page_bytes();
  const ByteRuns runs(page, {{8, 4 * page}});  // from page 1 on: 1, 5, ... 29
  checkpoint.kernel.spoil("0.shard", {11 * page, 1});
  checkpoint.open(kSmallBlocks);
  const auto engine = checkpoint.start({.threads = 2});
  REQUIRE(engine->wait(kHangBound));
  CHECK(engine->make_resident(0, {page, runs.extent_bytes()}));
  CHECK_FALSE(engine->make_resident(0, page, runs));
  checkpoint.kernel.spoil("0.shard", {21 * page, 1});
  const auto error = engine->make_resident(0, page, runs);
  REQUIRE(error);
  CHECK(error->errno_value == EIO);
  CHECK(error->offset / page == 21);
  CHECK(error->path == "0.shard");
}

TEST_CASE("make_resident gives the error of its file, on opening and on reading") {
  SimulatedCheckpoint checkpoint({1 * kMiB, 1 * kMiB});
  checkpoint.open(kSmallBlocks, 1);
  const auto engine = checkpoint.start({.threads = 1});
  REQUIRE(engine->wait(kHangBound));
  checkpoint.kernel.spoil("1.shard", {0, 1});
  const auto reading = engine->make_resident(1, {0, 100});
  REQUIRE(reading);
  CHECK(reading->operation == "pread");
  checkpoint.io.add(
      {.operation = Operation::open, .path_suffix = "0.shard", .errno_value = EACCES});
  const auto opening = engine->make_resident(0, {0, 100});
  REQUIRE(opening);
  CHECK(opening->errno_value == EACCES);
}

TEST_SUITE_END();
