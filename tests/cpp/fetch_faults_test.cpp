// fetch: reads that fail, for ever or once, come short, or find less than there was.
#include <doctest/doctest.h>

#include "engine/fetch.h"
#include "fetch_fixture.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("fetch_faults");

namespace {

constexpr std::uint64_t kSizeBytes = 8 * kMiB;
constexpr std::uint64_t kBadOffset = 3 * kMiB + 5000;
void check_sum(const FetchResult& result, std::uint64_t length) {
  CHECK(result.resident_bytes + result.read_bytes + result.failed_bytes == length);
  CHECK(result.lost_bytes <= result.read_bytes);
}

std::uint64_t preads_of(const FetchFixture& fixture, std::uint64_t offset) {
  std::uint64_t count = 0;
  for (const Request& request : fixture.checkpoint.kernel.requests()) {
    const bool reads = request.operation == Operation::pread;
    if (reads && !intersect(request.range, {offset, 1}).empty()) ++count;
  }
  return count;
}

}  // namespace

TEST_CASE("an error keeps errno, operation, path and offset") {
  for (const Strategy strategy : kStrategies) {
    CAPTURE(std::string(to_string(strategy)));
    FetchFixture fixture(strategy, kSizeBytes);
    fixture.checkpoint.io.add({.from_offset = kBadOffset});
    const FetchResult result = fixture.fetch_all();
    REQUIRE(result.error);
    CHECK(result.error->errno_value == EIO);
    CHECK(result.error->operation == "pread");
    CHECK(result.error->path == "0.shard");
    CHECK(result.error->offset >= 3 * kMiB);
    CHECK(result.error->offset <= kBadOffset);
    check_sum(result, kSizeBytes);
    CHECK(result.read_bytes <= kBadOffset);
    CHECK(result.failed_bytes >= kSizeBytes - kBadOffset);
  }
}

TEST_CASE("a read that fails is tried once more, and no more than that") {
  // Of a single step, so that each attempt meets the fault once.
  FetchFixture fixture(Strategy::fadvise, 128 * kKiB);
  fixture.checkpoint.io.add({});
  const FetchResult result = fixture.fetch_all();
  REQUIRE(result.error);
  CHECK(fixture.preads() == 2);
  check_sum(result, 128 * kKiB);
  CHECK(result.failed_bytes == 128 * kKiB);
}

TEST_CASE("an error that happens once is healed by the second attempt") {
  for (const Strategy strategy : kStrategies) {
    CAPTURE(std::string(to_string(strategy)));
    FetchFixture fixture(strategy, kSizeBytes);
    fixture.checkpoint.io.add({.from_offset = kBadOffset, .times = 1});
    const FetchResult result = fixture.fetch_all();
    CHECK_FALSE(result.error);
    CHECK(result.read_bytes == kSizeBytes);
    CHECK(result.failed_bytes == 0);
    CHECK(preads_of(fixture, kBadOffset) >= 1);
    CHECK(fixture.all_up_to_date());
    CHECK(fixture.checkpoint.kernel.most_loads_of_a_page() == 1);
  }
}

TEST_CASE("a bad page is not forgotten because the pages around it came") {
  // It stays in the page cache, so that residency counts it, and the last byte can be read.
  for (const Strategy strategy : kStrategies) {
    CAPTURE(std::string(to_string(strategy)));
    FetchFixture fixture(strategy, kSizeBytes, {.advise_clip_bytes = 1 * kMiB});
    fixture.checkpoint.io.add({.from_offset = 4 * kMiB - 4096, .to_offset = 4 * kMiB});
    const FetchResult result = fixture.fetch_all();
    REQUIRE(result.error);
    CHECK(result.error->errno_value == EIO);
    check_sum(result, kSizeBytes);
    CHECK(result.failed_bytes >= 4096);
  }
}

TEST_CASE("who uses the bytes finds a bad page that no touch meets, and where it is") {
  constexpr ByteRange kBad{5 * kMiB + 64 * kKiB, 4096};
  for (const Strategy strategy : kStrategies) {
    CAPTURE(std::string(to_string(strategy)));
    FetchFixture fixture(strategy, kSizeBytes);
    fixture.checkpoint.kernel.spoil("0.shard", kBad);
    const FetchResult result = fixture.fetcher.fetch_for_use(*fixture.file, {0, kSizeBytes});
    REQUIRE(result.error);
    CHECK(result.error->errno_value == EIO);
    CHECK(result.error->offset == kBad.offset);
    check_sum(result, kSizeBytes);
    CHECK(result.failed_bytes == kSizeBytes - kBad.offset);
  }
}

TEST_CASE("who uses the bytes finds a bad page where all counts as resident") {
  constexpr ByteRange kBad{5 * kMiB + 64 * kKiB, 4096};
  FetchFixture fixture(Strategy::automatic, kSizeBytes);
  fixture.checkpoint.kernel.make_resident("0.shard", {0, kSizeBytes});
  fixture.checkpoint.kernel.spoil("0.shard", kBad);
  CHECK_FALSE(fixture.fetch_all().error);
  const FetchResult used = fixture.fetcher.fetch_for_use(*fixture.file, {0, kSizeBytes});
  REQUIRE(used.error);
  CHECK(used.error->errno_value == EIO);
  CHECK(used.error->offset == kBad.offset);
  CHECK_FALSE(fixture.fetcher.fetch_for_use(*fixture.file, {0, kBad.offset}).error);
}

TEST_CASE("pages that were on their way and failed are not called resident") {
  FetchFixture fixture(Strategy::automatic, kSizeBytes);
  // Someone else's advice: cachestat counts these pages.
  for (std::uint64_t at = 0; at < kSizeBytes; at += kMiB) {
    fixture.checkpoint.kernel.fadvise_willneed(fixture.file->descriptor(), {at, kMiB});
  }
  fixture.checkpoint.io.add({});
  const FetchResult result = fixture.fetch_all();
  REQUIRE(result.error);
  check_sum(result, kSizeBytes);
  CHECK(result.failed_bytes == kSizeBytes);
}

TEST_CASE("pages that failed before are not called resident where others are absent") {
  FetchFixture fixture(Strategy::automatic, kSizeBytes);
  fixture.checkpoint.kernel.spoil("0.shard", {0, kMiB});
  const FetchResult result = fixture.fetch_all();
  REQUIRE(result.error);
  check_sum(result, kSizeBytes);
  CHECK(result.resident_bytes == 0);
  CHECK(result.failed_bytes == kSizeBytes);
}

TEST_CASE("a read that fails while it is being cancelled leaves nothing called read") {
  FetchFixture fixture(Strategy::pread, kSizeBytes);
  fixture.checkpoint.io.add({.from_offset = kBadOffset});
  fixture.cancelled = true;
  const FetchResult result = fixture.fetch_all();
  CHECK(result.cancelled);
  CHECK(result.read_bytes == 0);
}

TEST_CASE("short reads are read on") {
  FetchFixture fixture(Strategy::pread, 256 * kKiB + 77);
  fixture.checkpoint.io.add({.kind = FaultKind::short_read, .limit_bytes = 1000});
  const FetchResult result = fixture.fetch_all();
  CHECK_FALSE(result.error);
  CHECK(result.read_bytes == 256 * kKiB + 77);
  CHECK(fixture.all_up_to_date());
}

TEST_CASE("a file that became shorter gives ENODATA and the offset where it ends") {
  constexpr std::uint64_t kNewBytes = 5 * kMiB + 100;
  for (const Strategy strategy : kStrategies) {
    CAPTURE(std::string(to_string(strategy)));
    FetchFixture fixture(strategy, kSizeBytes);
    fixture.checkpoint.kernel.truncate("0.shard", kNewBytes);
    const FetchResult result = fixture.fetch_all();
    REQUIRE(result.error);
    CHECK(result.error->errno_value == ENODATA);
    CHECK(result.error->path == "0.shard");
    CHECK(result.error->offset == kNewBytes);
    CHECK(result.error->message().find(std::to_string(kSizeBytes)) != std::string::npos);
    check_sum(result, kSizeBytes);
    CHECK(result.failed_bytes == kSizeBytes - kNewBytes);
  }
}

TEST_CASE("an end of file that comes too early is the same") {
  FetchFixture fixture(Strategy::pread, kSizeBytes);
  fixture.checkpoint.io.add({.kind = FaultKind::end_of_file, .limit_bytes = 1 * kMiB});
  const FetchResult result = fixture.fetch_all();
  REQUIRE(result.error);
  CHECK(result.error->errno_value == ENODATA);
  CHECK(result.error->offset == 1 * kMiB);
}

TEST_CASE("a file that grew is read as far as was planned") {
  FetchFixture fixture(Strategy::automatic, 1 * kMiB);
  fixture.checkpoint.kernel.truncate("0.shard", 2 * kMiB);
  CHECK_FALSE(fixture.fetch_all().error);
}

TEST_CASE("lost advice and failed reads together: lost bytes are never more than read ones") {
  FetchFixture fixture(Strategy::fadvise, kSizeBytes, {.drop_every = 1});
  fixture.checkpoint.io.add({.from_offset = 6 * kMiB});
  const FetchResult result = fixture.fetch_all();
  REQUIRE(result.error);
  check_sum(result, kSizeBytes);
}

TEST_CASE("a pipelined fetch stops at the first error") {
  FetchFixture fixture(Strategy::automatic, 64 * kMiB);
  fixture.checkpoint.io.add({.from_offset = 10 * kMiB});
  const FetchResult result = fixture.fetcher.fetch_for_use(*fixture.file, {0, 64 * kMiB});
  REQUIRE(result.error);
  CHECK(result.error->offset < 16 * kMiB);
  CHECK(fixture.resident_bytes() <= 24 * kMiB + 128 * kKiB);
}

TEST_SUITE_END();
