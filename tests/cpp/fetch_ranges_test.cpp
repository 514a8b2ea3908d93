// fetch: several ranges of a file at once.
#include <doctest/doctest.h>

#include "engine/fetch.h"
#include "fetch_fixture.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("fetch_ranges");

namespace {

constexpr std::uint64_t kFile = 32 * kMiB;
constexpr auto kAlone = Fetcher::Beyond::unwanted;

std::uint64_t bytes_of(const std::vector<ByteRange>& ranges) {
  std::uint64_t bytes = 0;
  for (const ByteRange& range : ranges) bytes += range.length;
  return bytes;
}

// Small ones, one with a part of a window, one with a whole one.
const std::vector<ByteRange>& some_ranges() {
  static const std::vector<ByteRange> ranges = {{0, 64 * kKiB},
                                                {1 * kMiB, 320 * kKiB},
                                                {6 * kMiB, 3 * kMiB},
                                                {16 * kMiB, 4 * kMiB},
                                                {31 * kMiB, 1 * kMiB}};
  return ranges;
}

}  // namespace

TEST_CASE("nothing but the ranges is brought in, each page once, in every way") {
  for (const Strategy strategy : kStrategies) {
    for (const std::uint64_t populate_bytes : {std::uint64_t{0}, kPopulateBytes}) {
      CAPTURE(std::string(to_string(strategy)));
      CAPTURE(populate_bytes);
      FetchFixture fixture(strategy, kFile, {.populate_bytes = populate_bytes});
      for (int again = 0; again < 2; ++again) {
        const auto results = fixture.fetcher.fetch(*fixture.file, some_ranges(), kAlone);
        REQUIRE(results.size() == some_ranges().size());
        for (std::size_t i = 0; i < results.size(); ++i) {
          CAPTURE(i);
          CHECK_FALSE(results[i].error);
          CHECK(results[i].read_bytes == (again == 0 ? some_ranges()[i].length : 0));
          CHECK(results[i].resident_bytes == (again == 0 ? 0 : some_ranges()[i].length));
        }
      }
      CHECK(fixture.resident_bytes() == bytes_of(some_ranges()));
      CHECK(fixture.checkpoint.kernel.served_bytes() == bytes_of(some_ranges()));
      CHECK(fixture.checkpoint.kernel.most_loads_of_a_page() == 1);
    }
  }
}

TEST_CASE("where the mount reads on far no fault brings in a window of a part") {
  for (const std::uint64_t clip_bytes : {128 * kKiB, 2 * kMiB}) {
    CAPTURE(clip_bytes);
    FetchFixture fixture(Strategy::automatic, kFile,
                         {.advise_clip_bytes = clip_bytes, .populate_bytes = kPopulateBytes});
    fixture.fetcher.fetch(*fixture.file, {{0, 8 * kMiB}}, kAlone);  // the clip is measured
    const std::uint64_t before = fixture.populates();
    CHECK((before > 0) == (clip_bytes == 128 * kKiB));
    fixture.fetcher.fetch(*fixture.file, {{16 * kMiB, 8 * kMiB}}, kAlone);
    CHECK((fixture.populates() > before) == (clip_bytes == 128 * kKiB));
    fixture.fetcher.fetch(*fixture.file, {{8 * kMiB, 8 * kMiB}}, Fetcher::Beyond::wanted);
    CHECK(fixture.populates() >= before + 2);
    CHECK(fixture.resident_bytes() == 24 * kMiB);
  }
}

TEST_CASE("all are on their way before the first is waited for") {
  FetchFixture fixture(Strategy::fadvise, kFile);
  fixture.fetch({24 * kMiB, 1 * kMiB});  // the clip is measured
  const std::size_t before = fixture.checkpoint.kernel.requests().size();
  fixture.fetcher.fetch(*fixture.file, some_ranges(), kAlone);
  std::uint64_t advised_bytes = 0;
  const auto requests = fixture.checkpoint.kernel.requests();
  for (std::size_t i = before; i < requests.size(); ++i) {
    if (requests[i].operation == Operation::pread) break;
    if (requests[i].operation == Operation::fadvise_willneed) {
      advised_bytes += requests[i].range.length;
    }
  }
  CHECK(advised_bytes == bytes_of(some_ranges()));
}

TEST_CASE("a range that cannot be read is told, and the others come") {
  for (const Strategy strategy : kStrategies) {
    CAPTURE(std::string(to_string(strategy)));
    FetchFixture fixture(strategy, kFile, {.read_window_bytes = 4096});
    const std::uint64_t spoiled = some_ranges()[1].end() - page_bytes();  // a page that is touched
    fixture.checkpoint.kernel.spoil("0.shard", {spoiled, page_bytes()});
    const auto results = fixture.fetcher.fetch(*fixture.file, some_ranges(), kAlone);
    REQUIRE(results.size() == some_ranges().size());
    for (std::size_t i = 0; i < results.size(); ++i) {
      CAPTURE(i);
      CHECK(results[i].error.has_value() == (i == 1));
      if (i != 1) CHECK(results[i].read_bytes == some_ranges()[i].length);
    }
    REQUIRE(results[1].error);
    CHECK(results[1].error->offset == spoiled);
  }
}

TEST_CASE("whoever is cancelled leaves the rest alone") {
  FetchFixture fixture(Strategy::automatic, kFile);
  fixture.cancelled = true;
  const auto results = fixture.fetcher.fetch(*fixture.file, some_ranges(), kAlone);
  REQUIRE(results.size() == 1);
  CHECK(results[0].cancelled);
}

TEST_CASE("ranges behind the end of the file, and none at all") {
  FetchFixture fixture(Strategy::automatic, 100);
  const auto results = fixture.fetcher.fetch(*fixture.file, {{0, 100}, {4096, 10}}, kAlone);
  REQUIRE(results.size() == 2);
  CHECK(results[0].read_bytes == 100);
  CHECK(results[1].read_bytes == 0);
  CHECK(fixture.fetcher.fetch(*fixture.file, {}, kAlone).empty());
}

TEST_SUITE_END();
