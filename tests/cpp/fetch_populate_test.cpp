// fetch: windows that one fault brings in, and what happens where it does not.
#include <doctest/doctest.h>

#include "engine/fetch.h"
#include "fetch_fixture.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("fetch_populate");

namespace {

constexpr SimulatedKernel kCapable = {.advise_clip_bytes = 128 * kKiB,
                                      .populate_bytes = kPopulateBytes};

}  // namespace

TEST_CASE("each window costs one fault, and all of it is waited for") {
  for (const Strategy strategy : {Strategy::automatic, Strategy::populate}) {
    CAPTURE(std::string(to_string(strategy)));
    FetchFixture fixture(strategy, 16 * kMiB, kCapable);
    fixture.fetch({0, 16 * kMiB});
    // The first window is not empty any more: an advice there measured the clip.
    CHECK(fixture.populates() == 3);
    CHECK(fixture.step().populate == Populate::works);
    CHECK(fixture.all_up_to_date());
    CHECK(fixture.checkpoint.kernel.most_loads_of_a_page() == 1);
  }
}

TEST_CASE("the other strategies do not populate") {
  for (const Strategy strategy : {Strategy::fadvise, Strategy::readahead, Strategy::pread}) {
    CAPTURE(std::string(to_string(strategy)));
    FetchFixture fixture(strategy, 16 * kMiB, kCapable);
    fixture.fetch_all();
    CHECK(fixture.populates() == 0);
    CHECK(fixture.resident_bytes() == 16 * kMiB);
  }
}

TEST_CASE("once it works, an empty block is looked at once, and each window when it came") {
  FetchFixture fixture(Strategy::automatic, 48 * kMiB, kCapable);
  const auto looks_at = [&](ByteRange range) {
    const std::uint64_t before = fixture.checkpoint.io.calls(Operation::cachestat);
    CHECK(fixture.fetch(range).read_bytes > 0);
    return fixture.checkpoint.io.calls(Operation::cachestat) - before;
  };
  looks_at({0, 16 * kMiB});
  REQUIRE(fixture.step().populate == Populate::works);
  CHECK(looks_at({16 * kMiB, 16 * kMiB}) == 1 + 4);
  // Where something is there, each window is looked at before, too, and the block at the end.
  fixture.checkpoint.kernel.make_resident("0.shard", {40 * kMiB, 4096});
  CHECK(looks_at({32 * kMiB, 16 * kMiB}) == 1 + (2 + 2 + 1 + 2) + 1);
  CHECK(fixture.all_up_to_date());
  CHECK(fixture.checkpoint.kernel.most_loads_of_a_page() == 1);
}

TEST_CASE("nothing beyond the range is brought in") {
  for (const ByteRange range : {ByteRange{0, 3 * kMiB}, ByteRange{1 * kMiB, 9 * kMiB},
                                ByteRange{5 * kMiB, 64 * kKiB}, ByteRange{3 * kMiB, 6 * kMiB}}) {
    CAPTURE(range.offset);
    CAPTURE(range.length);
    FetchFixture fixture(Strategy::automatic, 32 * kMiB, kCapable);
    CHECK(fixture.fetch(range).read_bytes == range.length);
    CHECK(fixture.resident_bytes() == range.length);
  }
}

TEST_CASE("the end of a file is populated, however short") {
  FetchFixture fixture(Strategy::automatic, 16 * kMiB + 300001, kCapable);
  fixture.fetch({4 * kMiB, 12 * kMiB + 300001});
  CHECK(fixture.checkpoint.io.calls(Operation::fadvise_willneed) <= 4 * kMiB / (128 * kKiB) + 1);
  CHECK(fixture.resident_bytes() == 12 * kMiB + 300001);
}

TEST_CASE("a window of which something is resident is advised: a fault there starts nothing") {
  FetchFixture fixture(Strategy::automatic, 16 * kMiB, kCapable);
  for (std::uint64_t window = 0; window < 4; ++window) {
    fixture.checkpoint.kernel.make_resident("0.shard", {window * kPopulateBytes, 4096});
  }
  const FetchResult result = fixture.fetch_all();
  CHECK(fixture.populates() == 0);
  CHECK(result.lost_bytes == 0);
  CHECK(fixture.all_up_to_date());
}

TEST_CASE("a kernel that reads less for a fault: the rest is advised, and soon only that is done") {
  FetchFixture fixture(Strategy::automatic, 64 * kMiB,
                       {.advise_clip_bytes = 128 * kKiB, .populate_bytes = 128 * kKiB});
  const FetchResult result = fixture.fetch_all();
  CHECK(fixture.populates() == 3);
  CHECK(fixture.step().populate == Populate::fails);
  CHECK(result.lost_bytes == 0);
  CHECK(result.read_bytes == 64 * kMiB);
  CHECK(fixture.checkpoint.kernel.most_loads_of_a_page() == 1);
}

TEST_CASE("a kernel without it is asked once") {
  FetchFixture fixture(Strategy::populate, 16 * kMiB, {.populate_bytes = 0});
  CHECK_FALSE(fixture.fetch_all().error);
  CHECK(fixture.populates() == 1);
  CHECK(fixture.resident_bytes() == 16 * kMiB);
}

TEST_CASE("a page that cannot be read is found by its touch, and populating goes on elsewhere") {
  FetchFixture fixture(Strategy::automatic, 32 * kMiB, kCapable);
  fixture.checkpoint.io.add({.operation = Operation::fault_in_huge_pages,
                             .from_offset = 8 * kMiB,
                             .to_offset = 12 * kMiB,
                             .errno_value = EFAULT});
  fixture.checkpoint.io.add({.operation = Operation::pread,
                             .from_offset = 9 * kMiB,
                             .to_offset = 10 * kMiB,
                             .errno_value = EIO});
  const FetchResult result = fixture.fetch_all();
  REQUIRE(result.error);
  CHECK(result.error->errno_value == EIO);
  CHECK(fixture.step().populate == Populate::works);
}

TEST_CASE("without cachestat it could not be seen to work, so it is not tried") {
  FetchFixture fixture(Strategy::automatic, 16 * kMiB,
                       {.populate_bytes = kPopulateBytes, .cachestat_errno = EPERM});
  fixture.fetch_all();
  CHECK(fixture.populates() == 0);
  CHECK(fixture.all_up_to_date());
}

TEST_CASE("no fault after cancel") {
  FetchFixture fixture(Strategy::automatic, 16 * kMiB, kCapable);
  fixture.cancelled = true;
  CHECK(fixture.fetch_all().cancelled);
  CHECK(fixture.populates() == 0);
}

TEST_SUITE_END();
