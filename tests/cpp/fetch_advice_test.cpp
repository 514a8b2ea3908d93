// fetch: advice that is clipped, dropped, refused or useless, and how that is found out.
#include <doctest/doctest.h>

#include "engine/fetch.h"
#include "fetch_fixture.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("fetch_advice");

TEST_CASE("the clip is measured exactly") {
  for (const std::uint64_t clip_bytes : {128 * kKiB, 256 * kKiB, 1 * kMiB}) {
    for (const Strategy strategy : {Strategy::automatic, Strategy::fadvise, Strategy::readahead}) {
      CAPTURE(clip_bytes);
      CAPTURE(std::string(to_string(strategy)));
      FetchFixture fixture(strategy, 16 * kMiB, {.advise_clip_bytes = clip_bytes});
      const FetchResult result = fixture.fetch_all();
      CHECK(fixture.step().bytes == clip_bytes);
      CHECK(fixture.step().source == StepSource::measured);
      CHECK(result.lost_bytes == 0);
      CHECK(fixture.advices() == 16 * kMiB / clip_bytes + 1);
    }
  }
}

TEST_CASE("a range that starts resident is measured in its second half") {
  FetchFixture fixture(Strategy::automatic, 16 * kMiB, {.advise_clip_bytes = 256 * kKiB});
  fixture.checkpoint.kernel.make_resident("0.shard", {0, 4096});
  fixture.fetch_all();
  CHECK(fixture.step().bytes == 256 * kKiB);
  CHECK(fixture.step().source == StepSource::measured);
}

TEST_CASE("a measurement that someone else polluted is not believed") {
  FetchFixture fixture(Strategy::automatic, 16 * kMiB, {.advise_clip_bytes = 256 * kKiB});
  fixture.checkpoint.kernel.after_advice([&](const std::string& path, ByteRange) {
    fixture.checkpoint.kernel.make_resident(path, {3 * kMiB, 1 * kMiB});
  });
  CHECK_FALSE(fixture.fetch_all().error);
  CHECK(fixture.step().source == StepSource::assumed);
  CHECK(fixture.resident_bytes() == 16 * kMiB);
}

TEST_CASE("a range with resident pages in both halves is not measured") {
  FetchFixture fixture(Strategy::automatic, 16 * kMiB);
  fixture.checkpoint.kernel.make_resident("0.shard", {0, 4096});
  fixture.checkpoint.kernel.make_resident("0.shard", {12 * kMiB, 4096});
  fixture.fetch_all();
  CHECK(fixture.step().source == StepSource::assumed);
}

TEST_CASE("the step is whole pages, even when the first file is shorter than the clip") {
  FetchFixture fixture(Strategy::automatic, 300001, {.advise_clip_bytes = 8 * kMiB});
  fixture.fetch_all();
  CHECK(fixture.step().bytes % page_bytes() == 0);
}

TEST_CASE("without cachestat pages on their way do not show: advice is not judged by that") {
  FetchFixture fixture(Strategy::automatic, 16 * kMiB, {.cachestat_errno = ENOSYS});
  CHECK_FALSE(fixture.fetch_all().error);
  CHECK(fixture.step().advice_works);
  CHECK(fixture.step().source == StepSource::assumed);
  CHECK(fixture.advices() >= 16 * kMiB / kDefaultStepBytes);
  CHECK(fixture.all_up_to_date());
}

TEST_CASE("where residency is unknown the assumed step brings everything in") {
  FetchFixture fixture(Strategy::automatic, 16 * kMiB, {.cachestat_errno = EPERM, .owner = false});
  const FetchResult result = fixture.fetch_all();
  CHECK(result.read_bytes == 16 * kMiB);
  CHECK(fixture.step().source == StepSource::assumed);
  CHECK(fixture.resident_bytes() == 16 * kMiB);
  CHECK(fixture.checkpoint.io.calls(Operation::mincore) == 0);
}

TEST_CASE("steps whose advice was lost are read, and lost_bytes says how many") {
  FetchFixture fixture(Strategy::automatic, 16 * kMiB, {.drop_every = 4});
  const FetchResult result = fixture.fetch_all();
  // The first advice measured; of the 16 steps the 3rd, 7th, 11th and 15th were dropped, and the
  // touch brought in the last page of each.
  CHECK(result.lost_bytes == 4 * (1 * kMiB - page_bytes()));
  CHECK(result.read_bytes == 16 * kMiB);
  CHECK(fixture.step().source == StepSource::measured);
  CHECK(fixture.checkpoint.kernel.served_bytes() == 16 * kMiB);
  CHECK(fixture.checkpoint.kernel.most_loads_of_a_page() == 1);
}

TEST_CASE("where much advice is lost the step is lowered") {
  FetchFixture fixture(Strategy::automatic, 16 * kMiB, {.drop_every = 2});
  const FetchResult result = fixture.fetch_all();
  CHECK(result.lost_bytes > 4 * kMiB);
  CHECK(fixture.step().source == StepSource::lowered);
  CHECK(fixture.step().bytes == 512 * kKiB);
  CHECK(fixture.resident_bytes() == 16 * kMiB);
}

TEST_CASE("a step measured too large costs nothing but the repair") {
  FetchFixture fixture(Strategy::automatic, 32 * kMiB, {.advise_clip_bytes = 256 * kKiB});
  int advices = 0;
  fixture.checkpoint.kernel.after_advice([&](const std::string& path, ByteRange range) {
    // Someone read on from where the very first advice was clipped.
    if (advices++ == 0) {
      fixture.checkpoint.kernel.make_resident(path, {range.offset, 1 * kMiB});
    }
  });
  fixture.fetch({0, 16 * kMiB});
  CHECK(fixture.step().source == StepSource::lowered);
  fixture.fetch_all();
  CHECK(fixture.resident_bytes() == 32 * kMiB);
  CHECK(fixture.checkpoint.kernel.most_loads_of_a_page() == 1);
}

TEST_CASE("advice without any effect: auto reads, and does not advise again") {
  FetchFixture fixture(Strategy::automatic, 16 * kMiB, {.advise_clip_bytes = 0});
  CHECK(fixture.fetch({0, 8 * kMiB}).lost_bytes == 0);
  CHECK_FALSE(fixture.step().advice_works);
  const auto advices = fixture.advices();
  CHECK(fixture.fetch_all().read_bytes == 8 * kMiB);
  CHECK(fixture.advices() == advices);
  CHECK(fixture.all_up_to_date());
}

TEST_CASE("advice without any effect: where it was asked for it is tried, then read") {
  FetchFixture fixture(Strategy::fadvise, 16 * kMiB, {.advise_clip_bytes = 0});
  const FetchResult result = fixture.fetch_all();
  CHECK_FALSE(result.error);
  CHECK(result.lost_bytes > 0);
  CHECK(result.lost_bytes <= result.read_bytes);
  CHECK(fixture.all_up_to_date());
  CHECK(fixture.checkpoint.kernel.served_bytes() == 16 * kMiB);
}

TEST_CASE("advice that is refused is no error: the bytes are read") {
  for (const Strategy strategy : {Strategy::automatic, Strategy::fadvise, Strategy::readahead}) {
    CAPTURE(std::string(to_string(strategy)));
    FetchFixture fixture(strategy, 4 * kMiB);
    for (const Operation operation : {Operation::fadvise_willneed, Operation::readahead}) {
      fixture.checkpoint.io.add({.operation = operation, .errno_value = EOPNOTSUPP});
    }
    const FetchResult result = fixture.fetch_all();
    CHECK_FALSE(result.error);
    CHECK(result.read_bytes == 4 * kMiB);
    CHECK(fixture.all_up_to_date());
    CHECK(fixture.checkpoint.kernel.most_loads_of_a_page() == 1);
  }
}

TEST_CASE("advice that is refused where residency is unknown: every byte is read") {
  FetchFixture fixture(Strategy::automatic, 2 * kMiB, {.cachestat_errno = EPERM, .owner = false});
  fixture.checkpoint.io.add({.operation = Operation::fadvise_willneed, .errno_value = EINVAL});
  const FetchResult result = fixture.fetch_all();
  CHECK_FALSE(result.error);
  CHECK(result.read_bytes == 2 * kMiB);
  CHECK(fixture.resident_bytes() == 2 * kMiB);
}

TEST_CASE("a kernel that lies about residency costs bytes at most, never an error") {
  FetchFixture fixture(Strategy::automatic, 4 * kMiB);
  fixture.checkpoint.io.add({.operation = Operation::cachestat, .kind = FaultKind::lie});
  const FetchResult result = fixture.fetch_all();
  CHECK_FALSE(result.error);
  CHECK(result.resident_bytes == 4 * kMiB);
}

TEST_SUITE_END();
