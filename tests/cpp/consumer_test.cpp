// consumer: waiting for blocks that another participant of the board has, and reading them.
#include "engine/consumer.h"

#include <doctest/doctest.h>

#include <future>
#include <stdexcept>

#include "board/patience.h"
#include "board_fixture.h"
#include "engine/engine.h"
#include "engine_fixture.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("consumer");

namespace {

constexpr PlanOptions kBlocksOfOneMiB = {.block_bytes = 1 * kMiB, .head_block_bytes = 1 * kMiB};
constexpr ByteRange kInFirstBlock = {100, 1000};

// Another participant holds the first of four blocks; the engine has brought in the others.
class SharedLoad {
 public:
  explicit SharedLoad(FaultyFileIo** io = nullptr) : checkpoint({4 * kMiB}) {
    if (io != nullptr) *io = &checkpoint.io;
    checkpoint.open(kBlocksOfOneMiB);
    other = join(folder, checkpoint.plan);
    claim = other->take(kNoLimit);
    REQUIRE(claim);
    engine = std::make_unique<Engine>(checkpoint.io, checkpoint.plan, checkpoint.files,
                                      join(folder, checkpoint.plan),
                                      EngineOptions{.threads = 1, .tries_mounts = false});
    REQUIRE(checkpoint.kernel.wait_until_requested("0.shard", 4 * kMiB - 1, kHangBound));
  }

  const TemporaryFolder folder;
  SimulatedCheckpoint checkpoint;
  std::unique_ptr<BoardClaims> other;
  std::optional<Claim> claim;
  std::unique_ptr<Engine> engine;
};

}  // namespace

TEST_CASE("a consumer does not read what another is bringing in") {
  SharedLoad load;
  int looks = 0;
  const auto error = load.engine->make_resident(0, kInFirstBlock, [&] {
    if (++looks > 2) return;  // it reads by itself by now
    CHECK(load.checkpoint.kernel.resident_bytes("0.shard") == 3 * kMiB);
    if (looks == 2) load.other->settle(*load.claim, Outcome::done, 0);
  });
  CHECK_FALSE(error);
  CHECK(looks >= 2);
  // The other only said so: what is not resident is read after all.
  CHECK(load.checkpoint.kernel.resident_bytes("0.shard") > 3 * kMiB);
}

TEST_CASE("what is settled is not waited for") {
  SharedLoad load;
  CHECK_FALSE(load.engine->make_resident(0, {2 * kMiB, 1000}, [] { CHECK(false); }));
}

TEST_CASE("what is needed before its turn is read, whoever has its block") {
  SharedLoad load;
  CHECK_FALSE(load.engine->make_resident_now(0, kInFirstBlock, [] { CHECK(false); }));
  CHECK(load.checkpoint.kernel.resident_bytes("0.shard") > 3 * kMiB);
}

TEST_CASE("the caller can end the wait") {
  SharedLoad load;
  const auto interrupt = [] { throw std::runtime_error("interrupted"); };
  CHECK_THROWS_AS(load.engine->make_resident(0, kInFirstBlock, interrupt), std::runtime_error);
}

TEST_CASE("a block that no one brings in is read after all, and that, too, can be ended") {
  FaultyFileIo* io = nullptr;
  SharedLoad load(&io);
  io->add({.operation = Operation::pread, .kind = FaultKind::stall, .to_offset = 1 * kMiB});
  const auto interrupt = [&] {
    if (io->wait_until_stalled(1, std::chrono::seconds(0))) throw std::runtime_error("interrupted");
  };
  CHECK_THROWS_AS(load.engine->make_resident(0, kInFirstBlock, interrupt), std::runtime_error);
  io->release_stalled();
  CHECK_FALSE(load.engine->make_resident(0, kInFirstBlock, [] {}));
}

TEST_CASE("in a block that failed every byte is read: a bad page counts as resident") {
  FaultyFileIo* io = nullptr;
  SharedLoad load(&io);
  load.checkpoint.kernel.make_resident("0.shard", {0, 1 * kMiB});
  io->add({.operation = Operation::pread, .from_offset = 500, .to_offset = 501});
  load.other->settle(*load.claim, Outcome::failed, 0);
  const auto error = load.engine->make_resident(0, kInFirstBlock, [] {});
  REQUIRE(error);
  CHECK(error->errno_value == EIO);
  CHECK_FALSE(load.engine->make_resident(0, {600, 1000}, [] {}));
}

TEST_CASE("a rank that has opened its files waits for the others, and not for ever") {
  const TemporaryFolder folder;
  SimulatedCheckpoint checkpoint({64 * kKiB});
  checkpoint.open();
  BoardRefusal refusal;
  WaitingClock clock;
  Engine engine(checkpoint.io, checkpoint.plan, checkpoint.files,
                BoardClaims::join(folder.path(""), kName, checkpoint.plan, {}, refusal),
                {.consumer = true}, clock);
  const auto other = join(folder, checkpoint.plan);
  const auto waited = [&](const std::function<void()>& between) {
    const auto began = clock.now();
    engine.meet(2, between);
    return clock.now() - began;
  };
  CHECK(waited({}) == kAbsentPatience);
  other->report_consumer({});
  CHECK(waited({}) == kOpeningPatience);
  const auto interrupt = [] { throw std::runtime_error("interrupted"); };
  CHECK_THROWS_AS(engine.meet(2, interrupt), std::runtime_error);
  CHECK(waited([&] { other->tell_opened(); }) < kAbsentPatience);
  CHECK(waited(interrupt) == std::chrono::nanoseconds(0));
}

TEST_CASE("without a board no rank waits for others") {
  SimulatedCheckpoint checkpoint({64 * kKiB});
  checkpoint.open();
  const auto engine = checkpoint.start({.consumer = true});
  engine->meet(4, [] { throw std::runtime_error("it waits"); });
}

namespace {

// One consumer of files that lie in a simulated kernel, whose workers are only said to run.
struct AloneFixture {
  explicit AloneFixture(std::uint32_t workers) : checkpoint({4 * kMiB}) {
    checkpoint.open(kBlocksOfOneMiB);
    auto given = std::make_unique<ToldClaims>();
    claims = given.get();
    crew.emplace(clock, std::move(given), false, [](const Claims&) {});
    crew->begin(workers, [](std::uint32_t, const std::shared_ptr<Claims>&) { return true; });
    consumer.emplace(checkpoint.io, clock, *checkpoint.files, steps);
  }

  [[nodiscard]] bool wait(const Between& between = {}) {
    return consumer->wait_for_blocks(*crew, {0, 4}, between);
  }

  SimulatedCheckpoint checkpoint;
  WaitingClock clock;
  StepTable steps;
  ToldClaims* claims = nullptr;
  std::optional<Crew> crew;
  std::optional<Consumer> consumer;
};

}  // namespace

TEST_CASE("blocks are waited for until they are settled, or do not move") {
  AloneFixture fixture(1);
  fixture.claims->unsettled = 2;
  int looks = 0;
  CHECK(fixture.wait([&] {
    if (++looks == 3) fixture.claims->unsettled = 0;
  }));
  CHECK(looks == 3);
  const auto began = fixture.clock.now();
  fixture.claims->unsettled = 1;
  CHECK_FALSE(fixture.wait());
  CHECK(fixture.clock.now() - began == kConsumerPatience);
  CHECK(fixture.claims->recoveries > 0);
  // Once in vain is enough: while nothing moves no further tensor waits.
  CHECK_FALSE(fixture.wait([] { throw std::runtime_error("it waits"); }));
}

TEST_CASE("where no worker runs, or nothing is known, no block is waited for") {
  AloneFixture ended(0);
  CHECK_FALSE(ended.wait());
  AloneFixture unknown(1);
  CHECK_FALSE(unknown.wait());
  unknown.claims->unsettled = 1;
  unknown.crew->cancel();
  CHECK_FALSE(unknown.wait());
}

TEST_CASE("only what is there, of a file that is open, is up to date") {
  AloneFixture fixture(1);
  CHECK(fixture.consumer->is_up_to_date(0, {0, 4096}) == false);
  fixture.checkpoint.kernel.make_resident("0.shard", {0, 1 * kMiB});
  CHECK(fixture.consumer->is_up_to_date(0, {0, 1 * kMiB}) == true);
  CHECK(fixture.consumer->is_up_to_date(0, {0, 1 * kMiB + 1}) == false);
  CHECK(fixture.consumer->is_up_to_date(0, {4 * kMiB, 1}) == false);
}

TEST_CASE("plainly read, each byte has to be readable, also of what counts as resident") {
  AloneFixture fixture(1);
  fixture.checkpoint.kernel.make_resident("0.shard", {0, 1 * kMiB});
  fixture.checkpoint.io.add({.operation = Operation::pread, .from_offset = 500, .to_offset = 501});
  const FetchResult result = fixture.consumer->fetch(0, {0, 64 * kKiB}, true);
  REQUIRE(result.error);
  CHECK(result.error->errno_value == EIO);
  CHECK_FALSE(fixture.consumer->fetch(0, {2 * kMiB, 64 * kKiB}, false).error);
  CHECK(fixture.checkpoint.kernel.resident_bytes("0.shard") >= 1 * kMiB + 64 * kKiB);
}

TEST_CASE("a file that cannot be opened is the error of what was wanted of it") {
  StepTable steps;
  SimulatedCheckpoint checkpoint({4096});
  const auto open = []() -> std::shared_ptr<const File> {
    throw IoException({ENOENT, "open", "gone", 0, ""});
  };
  const FetchResult result = fetch_for_consumer(checkpoint.io, steps, open, "gone", {0, 1}, false);
  REQUIRE(result.error);
  CHECK(result.error->errno_value == ENOENT);
}

TEST_SUITE_END();
