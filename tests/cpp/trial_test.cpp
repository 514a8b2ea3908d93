// trial: mounts that do not keep what is brought in, and an engine on them.
#include "engine/trial.h"

#include <doctest/doctest.h>

#include <atomic>
#include <numeric>
#include <stdexcept>
#include <thread>

#include "board_fixture.h"
#include "engine/engine.h"
#include "engine_fixture.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("trial");

namespace {

constexpr PlanOptions kSmallBlocks{256 * kKiB, 64 * kKiB, 2};

}  // namespace

TEST_CASE("nothing is fetched in vain, and the report says why") {
  for (const bool uncached : {false, true}) {
    CAPTURE(uncached);
    SimulatedCheckpoint checkpoint(
        {20 * kMiB, 20 * kMiB},
        {.read_window_bytes = 4096, .open_empties = !uncached, .uncached = uncached});
    checkpoint.open(kSmallBlocks);
    const auto engine = checkpoint.start({.threads = 8});
    REQUIRE(engine->wait(kHangBound));
    CHECK(checkpoint.kernel.served_bytes() <= 2 * page_bytes());
    const Report report = engine->report();
    CHECK(report.keeping == (uncached ? "uncached" : "emptied_by_open"));
    CHECK(keeps_nothing(engine->keeping()));
    CHECK(report.done);
    CHECK_FALSE(report.cancelled);
    CHECK(report.error_count == 0);
    CHECK(report.left_out_bytes == 40 * kMiB);
    // A consumer that insists on mappings still gets its bytes.
    CHECK_FALSE(engine->make_resident(0, {0, 4 * kMiB}, [] {}));
    CHECK(engine->report().refetched_bytes == 0);
  }
}

TEST_CASE("a mount that keeps pages costs one page, which counts as read") {
  SimulatedCheckpoint checkpoint({4 * kMiB}, {.read_window_bytes = 4096});
  checkpoint.open(kSmallBlocks);
  const auto engine = checkpoint.start({.threads = 4});
  REQUIRE(engine->wait(kHangBound));
  const Report report = engine->report();
  CHECK(report.keeping == "keeps");
  CHECK(report.read_bytes == 4 * kMiB);
  CHECK(report.resident_bytes == 0);
  CHECK(checkpoint.kernel.served_bytes() == 4 * kMiB);
}

TEST_CASE("where it is not known all is fetched") {
  SimulatedCheckpoint checkpoint({4 * kMiB},
                                 {.open_empties = true, .cachestat_errno = EPERM, .owner = false});
  checkpoint.open(kSmallBlocks);
  const auto engine = checkpoint.start({.threads = 4});
  REQUIRE(engine->wait(kHangBound));
  CHECK(engine->report().keeping == "unknown");
  CHECK(engine->keeping() == Keeping::unknown);
  CHECK(engine->report().left_out_bytes == 0);
}

TEST_CASE("a trial that stalls holds up neither the workers nor the exit") {
  SimulatedCheckpoint checkpoint({1 * kMiB, 1 * kMiB});
  checkpoint.open({1 * kMiB, 1 * kMiB, 0});
  checkpoint.io.add({.kind = FaultKind::stall, .path_suffix = "0.shard", .times = 1});
  auto engine = checkpoint.start({.threads = 2});
  REQUIRE(checkpoint.io.wait_until_stalled(1, kHangBound));
  CHECK(checkpoint.kernel.wait_until_requested("1.shard", 1 * kMiB - 1, kHangBound));
  int looks = 0;
  const auto interrupt = [&] {
    if (++looks > 1) throw std::runtime_error("interrupted");
  };
  CHECK_THROWS_AS(engine->keeping(interrupt), std::runtime_error);
  engine.reset();
  checkpoint.io.release_stalled();
}

TEST_CASE("a share without blocks has no worker, and is told all the same") {
  SimulatedCheckpoint checkpoint({64 * kKiB}, {.open_empties = true});
  checkpoint.open(kSmallBlocks);
  Engine engine(checkpoint.io, checkpoint.plan, checkpoint.files,
                std::make_unique<StaticClaims>(checkpoint.plan, std::vector<std::uint32_t>{}),
                EngineOptions{});
  CHECK(engine.keeping() == Keeping::emptied_by_open);
}

TEST_CASE("whose blocks lie beyond the window of a slower consumer is told all the same") {
  for (const bool empties : {false, true}) {
    CAPTURE(empties);
    const TemporaryFolder folder;
    SimulatedCheckpoint checkpoint({8 * kMiB, 4 * kMiB}, {.open_empties = empties});
    checkpoint.open(kSmallBlocks);
    const auto& plan = *checkpoint.plan;
    const BlockRange of_second = plan.blocks_under(1, {0, 4 * kMiB});
    std::vector<std::uint32_t> wanted(of_second.end - of_second.begin);
    std::iota(wanted.begin(), wanted.end(), of_second.begin);
    const auto slower = join(folder, checkpoint.plan);  // wants all, and goes on with nothing
    slower->report_consumer({});
    BoardRefusal refusal;
    auto board = BoardClaims::join(folder.path(""), kName, checkpoint.plan, wanted, refusal);
    REQUIRE(board);
    Engine engine(checkpoint.io, checkpoint.plan, checkpoint.files, std::move(board),
                  {.threads = 2, .window_bytes = 1 * kMiB, .consumer = true});
    int looks = 0;
    const auto between = [&] {
      if (++looks > 100) throw std::runtime_error("not told");
    };
    CHECK(engine.keeping(between) == (empties ? Keeping::emptied_by_open : Keeping::keeps));
  }
}

TEST_CASE("what one participant found out holds for those to whom it looks otherwise") {
  const TemporaryFolder folder;
  SimulatedCheckpoint keeps({4 * kMiB}, {});
  keeps.open(kSmallBlocks);
  const auto other = join(folder, keeps.plan);
  other->tell_keeping(Keeping::emptied_by_open);
  Engine engine(keeps.io, keeps.plan, keeps.files, join(folder, keeps.plan), EngineOptions{});
  REQUIRE(engine.wait(kHangBound));
  CHECK(engine.keeping() == Keeping::emptied_by_open);
  CHECK(keeps.kernel.served_bytes() == 0);
}

namespace {

struct TrialFixture {
  explicit TrialFixture(SimulatedKernel kernel = {}) : checkpoint({4 * kMiB}, kernel) {
    checkpoint.open(kSmallBlocks);
  }

  bool try_mount(std::uint64_t& tried_bytes) {
    return trial.try_mount(*checkpoint.files->acquire(0), {{0, 4 * kMiB}}, &claims, tried_bytes);
  }
  bool try_mount() {
    std::uint64_t ignored = 0;
    return try_mount(ignored);
  }

  SimulatedCheckpoint checkpoint;
  WaitingClock clock;
  ToldClaims claims;
  std::atomic<bool> cancelled{false};
  Trial trial{checkpoint.io, clock, cancelled};
};

}  // namespace

TEST_CASE("one trial tells all who ask, and rings the bell of who waits for it") {
  TrialFixture fixture({.read_window_bytes = 4096});
  CHECK_FALSE(fixture.trial.verdict(&fixture.claims));
  CHECK_FALSE(fixture.trial.is_in_vain(&fixture.claims));
  std::uint64_t tried_bytes = 0;
  const std::uint32_t seen = doorbell_seen(fixture.trial.bell());
  CHECK(fixture.try_mount(tried_bytes));
  CHECK(tried_bytes == page_bytes());
  CHECK(doorbell_seen(fixture.trial.bell()) != seen);
  CHECK(fixture.trial.verdict(&fixture.claims) == Keeping::keeps);
  tried_bytes = 0;
  CHECK(fixture.try_mount(tried_bytes));
  CHECK(tried_bytes == 0);
}

TEST_CASE("what a trial found is told to others, and what others found needs no trial") {
  TrialFixture empties({.open_empties = true});
  CHECK_FALSE(empties.try_mount());
  CHECK(empties.claims.told == Keeping::emptied_by_open);
  TrialFixture told;
  told.claims.told = Keeping::uncached;
  CHECK(told.trial.is_in_vain(&told.claims));
  CHECK_FALSE(told.try_mount());
  CHECK(told.checkpoint.kernel.served_bytes() == 0);
}

TEST_CASE("who waits for a trial that hangs hears what others have found meanwhile") {
  TrialFixture fixture;
  fixture.checkpoint.io.add({.kind = FaultKind::stall, .path_suffix = "0.shard", .times = 1});
  std::thread hanging([&] { fixture.try_mount(); });
  REQUIRE(fixture.checkpoint.io.wait_until_stalled(1, kHangBound));
  const auto before = fixture.clock.time;
  CHECK(fixture.try_mount());  // has waited, and nobody knows
  CHECK(fixture.clock.time >= before + std::chrono::seconds(1));
  fixture.claims.told = Keeping::uncached;
  const auto waited = fixture.clock.time;
  CHECK_FALSE(fixture.try_mount());
  CHECK(fixture.clock.time == waited);
  fixture.checkpoint.io.release_stalled();
  hanging.join();
}

TEST_CASE("what others had found stays known after the claims are given up") {
  TrialFixture fixture;
  fixture.trial.close(fixture.claims);
  CHECK_FALSE(fixture.trial.verdict(nullptr));
  fixture.claims.told = Keeping::emptied_by_open;
  fixture.trial.close(fixture.claims);
  CHECK(fixture.trial.verdict(nullptr) == Keeping::emptied_by_open);
}

TEST_CASE("one thread tries alone, and where nothing comes of it nothing is known") {
  TrialFixture fixture;
  CHECK(fixture.trial.begin_alone());
  CHECK_FALSE(fixture.trial.begin_alone());
  const std::uint32_t seen = doorbell_seen(fixture.trial.bell());
  fixture.trial.fail_alone();
  CHECK(doorbell_seen(fixture.trial.bell()) != seen);
  CHECK(fixture.trial.verdict(&fixture.claims) == Keeping::unknown);
}

TEST_SUITE_END();
