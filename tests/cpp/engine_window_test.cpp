// engine: the window between the prefetch and its consumer.
#include <doctest/doctest.h>

#include <limits>

#include "engine/engine.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("engine_window");

namespace {

constexpr std::uint64_t kFileBytes = 4 * kMiB;
constexpr std::uint64_t kBlockBytes = 256 * kKiB;
constexpr std::uint64_t kWindowBytes = 1 * kMiB;

struct WindowFixture {
  explicit WindowFixture(std::uint32_t threads, bool consumer = true)
      : checkpoint({kFileBytes, kFileBytes}) {
    checkpoint.open({kBlockBytes, kBlockBytes, 0});
    engine =
        checkpoint.start({.threads = threads, .window_bytes = kWindowBytes, .consumer = consumer});
  }

  // The end of the last block that was asked for, as a position in the checkpoint.
  [[nodiscard]] std::uint64_t asked_position() const {
    std::uint64_t most = 0;
    for (const Request& request : checkpoint.kernel.requests()) {
      if (request.range.empty() || request.operation == Operation::cachestat) continue;
      const std::uint64_t file_position = request.path == "0.shard" ? 0 : kFileBytes;
      most = std::max(most, file_position + request.range.end());
    }
    return most;
  }

  // Waits until the block that ends at this position is asked for.
  [[nodiscard]] bool reaches(std::uint64_t position) const {
    const std::uint64_t begin = position - kBlockBytes;
    return checkpoint.kernel.wait_until_requested(SimulatedCheckpoint::path(begin / kFileBytes),
                                                  begin % kFileBytes, kHangBound);
  }

  // Ends the threads, after which the log of the requests is complete.
  void finish() {
    engine.reset();
    checkpoint.files.reset();
    CHECK(checkpoint.kernel.wait_until_closed(kHangBound));
  }

  SimulatedCheckpoint checkpoint;
  std::unique_ptr<Engine> engine;
};

}  // namespace

TEST_CASE("the window follows the consumer, and nothing beyond it is claimed") {
  for (const std::uint32_t threads : {1U, 4U, 16U}) {
    CAPTURE(threads);
    WindowFixture fixture(threads);
    for (std::uint64_t consumed = 0; consumed <= 6 * kMiB; consumed += kBlockBytes) {
      fixture.engine->consumed(consumed, consumed);
      REQUIRE(fixture.reaches(consumed + kWindowBytes));
      REQUIRE(fixture.asked_position() <= consumed + kWindowBytes);
      REQUIRE_FALSE(fixture.engine->done());
    }
    fixture.finish();
    CHECK(fixture.asked_position() == 7 * kMiB);
  }
}

TEST_CASE("a consumer that goes on to the end gets everything") {
  WindowFixture fixture(4);
  for (std::uint64_t consumed = 0; consumed <= 2 * kFileBytes; consumed += 300 * kKiB) {
    fixture.engine->consumed(consumed, consumed);
    REQUIRE(fixture.engine->progress().consumed_bytes == consumed);
    REQUIRE(fixture.engine->progress().window_bytes == kWindowBytes);
  }
  CHECK(fixture.engine->wait(kHangBound));
  CHECK(fixture.engine->report().left_out_bytes == 0);
  CHECK(fixture.checkpoint.resident_bytes() == 2 * kFileBytes);
}

TEST_CASE("the window grows to what is needed next") {
  WindowFixture fixture(2);
  fixture.engine->consumed(0, 5 * kMiB);
  CHECK(fixture.reaches(5 * kMiB));
  fixture.finish();
  CHECK(fixture.asked_position() == 5 * kMiB);
}

TEST_CASE("a block that begins inside the window is taken whole") {
  WindowFixture fixture(1);
  fixture.engine->consumed(1, 0);
  CHECK(fixture.reaches(kWindowBytes + kBlockBytes));
  fixture.finish();
  CHECK(fixture.asked_position() == kWindowBytes + kBlockBytes);
}

TEST_CASE("positions never go back") {
  WindowFixture fixture(1);
  fixture.engine->consumed(2 * kMiB, 0);
  fixture.engine->consumed(1 * kMiB, 0);
  CHECK(fixture.reaches(3 * kMiB));
}

TEST_CASE("a consumer that is past everything opens the window for good") {
  WindowFixture fixture(2);
  fixture.engine->consumed(std::numeric_limits<std::uint64_t>::max(), 0);
  CHECK(fixture.engine->wait(kHangBound));
  CHECK(fixture.engine->report().left_out_bytes == 0);
}

TEST_CASE("without a consumer the prefetch ends with the window") {
  WindowFixture fixture(4, false);
  REQUIRE(fixture.engine->wait(kHangBound));
  const Report report = fixture.engine->report();
  CHECK(report.done);
  CHECK_FALSE(report.cancelled);
  CHECK(report.resident_bytes + report.read_bytes == kWindowBytes);
  CHECK(report.left_out_bytes == 2 * kFileBytes - kWindowBytes);
  CHECK(fixture.asked_position() == kWindowBytes);
}

TEST_CASE("workers that wait for the window end when they are cancelled") {
  WindowFixture fixture(8);
  REQUIRE(fixture.reaches(kWindowBytes));
  fixture.engine->cancel();
  CHECK(fixture.engine->wait(kHangBound));
  CHECK(fixture.engine->report().cancelled);
  CHECK(fixture.engine->report().left_out_bytes >= 2 * kFileBytes - kWindowBytes);
}

TEST_CASE("what is asked for early does not wait for its turn, and was not resident") {
  constexpr ByteRange kEarly = {2 * kMiB, 64 * kKiB};
  WindowFixture fixture(4);
  CHECK(fixture.reaches(kWindowBytes));
  fixture.engine->ask_early(1, {kEarly, {3 * kMiB, 1}});
  CHECK(fixture.checkpoint.kernel.resident_bytes("1.shard") == kEarly.length + page_bytes());
  fixture.engine->consumed(2 * kFileBytes, 2 * kFileBytes);
  REQUIRE(fixture.engine->wait(kHangBound));
  const Report report = fixture.engine->report();
  CHECK(report.resident_bytes == 0);
  CHECK(report.read_bytes == report.planned_bytes);
  // After the end, and of a file that is not there any more.
  fixture.engine->ask_early(1, {kEarly});
}

TEST_CASE("under a rate limit nothing is asked for early") {
  SimulatedCheckpoint checkpoint({4 * kMiB});
  checkpoint.open();
  const auto engine = checkpoint.start({.consumer = true, .rate_limit_bytes_per_s = 1});
  REQUIRE(checkpoint.kernel.wait_until_requested("0.shard", 0, kHangBound));
  engine->ask_early(0, {{3 * kMiB, 64 * kKiB}});
  CHECK_FALSE(checkpoint.kernel.wait_until_requested("0.shard", 3 * kMiB, std::chrono::seconds(0)));
}

TEST_SUITE_END();
