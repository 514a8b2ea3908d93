// probe: what is absent is found in steps, and only absent pages are timed.
#include "node/probe.h"

#include <doctest/doctest.h>

#include <cerrno>

#include "base/error.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("probe");

namespace {

constexpr std::uint64_t kFileBytes = 8 * kMiB + 100;

struct OneFile {
  explicit OneFile(const SimulatedKernel& kernel = {}) : checkpoint({kFileBytes}, kernel) {
    checkpoint.open();
    file = checkpoint.files->acquire(0);
  }
  [[nodiscard]] auto absent(std::uint64_t limit_bytes = kGiB) const {
    return absent_ranges(checkpoint.io, *file, limit_bytes);
  }
  void make_resident(ByteRange range) const { checkpoint.kernel.make_resident("0.shard", range); }

  SimulatedCheckpoint checkpoint;
  std::shared_ptr<const File> file;
};

using Ranges = std::vector<ByteRange>;

}  // namespace

TEST_CASE("all of a cold file, none of a warm one") {
  const OneFile one;
  CHECK(one.absent() == Ranges{{0, kFileBytes}});
  one.make_resident({0, kFileBytes});
  CHECK(one.absent() == Ranges{});
}

TEST_CASE("a step with one resident page is left out") {
  const OneFile one;
  one.make_resident({3 * kMiB + 4096, 1});
  one.make_resident({kFileBytes - 1, 1});
  CHECK(one.absent() == Ranges{{0, 3 * kMiB}, {4 * kMiB, 4 * kMiB}});
}

TEST_CASE("no more than the limit, and no further look behind it") {
  const OneFile one;
  one.make_resident({0, kMiB});
  CHECK(one.absent(2 * kMiB + 5) == Ranges{{kMiB, 2 * kMiB + 5}});
  CHECK(one.checkpoint.io.calls(Operation::cachestat) == 4);
  CHECK(one.absent(0) == Ranges{});
}

TEST_CASE("where residency is not told nothing is called absent") {
  const OneFile one({.cachestat_errno = EPERM, .owner = false});
  CHECK(one.absent() == std::nullopt);
  CHECK(read_latencies(one.checkpoint.io, *one.file, {0, kMiB}).empty());
}

TEST_CASE("latency is of absent pages alone, and each is read once") {
  const OneFile one;
  one.make_resident({2 * kMiB, kMiB});
  const auto seconds =
      read_latencies(one.checkpoint.io, *one.file, {kMiB + 1, 2 * kMiB, 5 * kMiB, 5 * kMiB});
  CHECK(seconds.size() == 2);
  for (const double each : seconds) CHECK(each >= 0);
  CHECK(one.checkpoint.io.calls(Operation::pread) == 2);
}

TEST_CASE("a page that cannot be read is an error with its offset") {
  const OneFile one;
  one.checkpoint.io.add({.from_offset = kMiB});
  try {
    read_latencies(one.checkpoint.io, *one.file, {kMiB + 1});
    FAIL("no exception");
  } catch (const IoException& exception) {
    CHECK(exception.error().errno_value == EIO);
    CHECK(exception.error().offset == kMiB);
  }
}

TEST_SUITE_END();
