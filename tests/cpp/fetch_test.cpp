// fetch: a healthy file comes in whole and once, whatever the kernel makes of advice.
#include "engine/fetch.h"

#include <doctest/doctest.h>

#include <random>

#include "fetch_fixture.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("fetch");

namespace {

SimulatedKernel random_kernel(std::mt19937_64& random) {
  constexpr std::uint64_t kClipsBytes[] = {0, 4 * kKiB, 128 * kKiB, 256 * kKiB, kMiB, 8 * kMiB};
  SimulatedKernel kernel;
  kernel.advise_clip_bytes = kClipsBytes[random() % std::size(kClipsBytes)];
  kernel.read_window_bytes = (1 + random() % 64) * 4 * kKiB;
  kernel.drop_every = random() % 5;
  kernel.cachestat_errno = random() % 3 == 0 ? ENOSYS : 0;
  return kernel;
}

}  // namespace

TEST_CASE("any range comes in whole, each page from the storage once") {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    std::mt19937_64 random(seed);
    const Strategy strategy = kStrategies[random() % std::size(kStrategies)];
    const std::uint64_t size_bytes = 1 + random() % (6 * kMiB);
    FetchFixture fixture(strategy, size_bytes, random_kernel(random));
    CAPTURE(seed);
    CAPTURE(std::string(to_string(strategy)));
    for (int round = 0; round < 3; ++round) {
      const std::uint64_t offset = random() % size_bytes;
      const ByteRange range = {offset, 1 + random() % (size_bytes - offset)};
      const ByteRange pages = grow_to_units(range, page_bytes(), size_bytes);
      const FetchResult result = fixture.fetch(range);
      REQUIRE_FALSE(result.error);
      REQUIRE_FALSE(result.cancelled);
      REQUIRE(result.failed_bytes == 0);
      REQUIRE(result.resident_bytes + result.read_bytes == pages.length);
      REQUIRE(result.lost_bytes <= result.read_bytes);
      const auto found = fixture.checkpoint.kernel.cachestat(fixture.file->descriptor(), pages);
      if (found >= 0) {
        const auto expected = align_up(pages.length, page_bytes()) / page_bytes();
        REQUIRE(static_cast<std::uint64_t>(found) == expected);
      }
    }
    fixture.fetch_all();
    REQUIRE(fixture.resident_bytes() == size_bytes);
    REQUIRE(fixture.all_up_to_date());
    REQUIRE(fixture.checkpoint.kernel.served_bytes() == size_bytes);
    REQUIRE(fixture.checkpoint.kernel.most_loads_of_a_page() == 1);
  }
}

TEST_CASE("what is resident costs exactly one pread and no advice") {
  for (const Strategy strategy : kStrategies) {
    FetchFixture fixture(strategy, 4 * kMiB);
    fixture.checkpoint.kernel.make_resident("0.shard", {0, 4 * kMiB});
    const FetchResult result = fixture.fetch_all();
    CHECK(result.resident_bytes == 4 * kMiB);
    CHECK(result.read_bytes == 0);
    CHECK(fixture.preads() == 1);
    CHECK(fixture.advices() == 0);
    CHECK(fixture.checkpoint.kernel.served_bytes() == 0);
  }
}

TEST_CASE("resident and read bytes are told apart") {
  FetchFixture fixture(Strategy::automatic, 4 * kMiB);
  fixture.checkpoint.kernel.make_resident("0.shard", {1 * kMiB, 1 * kMiB});
  const FetchResult result = fixture.fetch_all();
  CHECK(result.resident_bytes == 1 * kMiB);
  CHECK(result.read_bytes == 3 * kMiB);
  CHECK(fixture.checkpoint.kernel.served_bytes() == 3 * kMiB);
}

TEST_CASE("all is advised before the first byte is waited for") {
  FetchFixture fixture(Strategy::fadvise, 8 * kMiB);
  fixture.fetch_all();
  std::uint64_t last_advice = 0;
  std::uint64_t first_pread = 0;
  const auto requests = fixture.checkpoint.kernel.requests();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (requests[i].operation == Operation::fadvise_willneed) last_advice = i;
    if (requests[i].operation == Operation::pread && first_pread == 0) first_pread = i;
  }
  CHECK(last_advice < first_pread);
}

TEST_CASE("touches copy one byte for each step, and one more to be woken once") {
  FetchFixture fixture(Strategy::fadvise, 8 * kMiB, {.advise_clip_bytes = 1 * kMiB});
  fixture.fetch_all();
  CHECK(fixture.preads() == 9);
  for (const Request& request : fixture.checkpoint.kernel.requests()) {
    if (request.operation == Operation::pread) CHECK(request.range.length == 1);
  }
}

TEST_CASE("a cancelled fetch reads nothing more") {
  for (const Strategy strategy : kStrategies) {
    FetchFixture fixture(strategy, 4 * kMiB);
    fixture.cancelled = true;
    const FetchResult result = fixture.fetch_all();
    CHECK(result.cancelled);
    CHECK_FALSE(result.error);
    CHECK(result.failed_bytes == 0);
    CHECK(fixture.preads() == 0);
  }
}

TEST_CASE("a range outside of the file, or of no bytes, is nothing to do") {
  FetchFixture fixture(Strategy::automatic, 10000);
  for (const ByteRange range : {ByteRange{20000, 10}, ByteRange{10000, 10}, ByteRange{500, 0}}) {
    const FetchResult result = fixture.fetch(range);
    CHECK(result.resident_bytes + result.read_bytes == 0);
    CHECK_FALSE(result.error);
  }
  CHECK(fixture.preads() == 0);
}

TEST_CASE("a pipelined fetch advises the next piece before it waits for this one") {
  FetchFixture fixture(Strategy::automatic, 40 * kMiB + 123);
  const ByteRange range = {5000, 36 * kMiB};
  const FetchResult result = fixture.fetcher.fetch_for_use(*fixture.file, range);
  CHECK_FALSE(result.error);
  CHECK(fixture.checkpoint.kernel.most_loads_of_a_page() == 1);
  CHECK(fixture.resident_bytes() >= range.length);
  bool advised_ahead = false;
  for (const Request& request : fixture.checkpoint.kernel.requests()) {
    const bool of_second_piece = request.range.offset >= 5000 + 8 * kMiB;
    if (request.operation == Operation::fadvise_willneed && of_second_piece) advised_ahead = true;
    if (request.operation == Operation::pread) break;
  }
  CHECK(advised_ahead);
}

TEST_CASE("a pipelined fetch counts what it brought in, piece by piece") {
  FetchFixture fixture(Strategy::pread, 20 * kMiB);
  const FetchResult result = fixture.fetcher.fetch_for_use(*fixture.file, {0, 20 * kMiB});
  CHECK(result.resident_bytes + result.read_bytes == 20 * kMiB);
  CHECK(fixture.advices() == 0);
  CHECK(fixture.all_up_to_date());
}

TEST_SUITE_END();
