// consumer: waiting for blocks that another participant of the board has.
#include <doctest/doctest.h>

#include <future>
#include <stdexcept>

#include "board/patience.h"
#include "board_fixture.h"
#include "engine/engine.h"
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
  const auto error = load.engine->fetch_now(0, kInFirstBlock, [&] {
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
  CHECK_FALSE(load.engine->fetch_now(0, {2 * kMiB, 1000}, [] { CHECK(false); }));
}

TEST_CASE("the caller can end the wait") {
  SharedLoad load;
  const auto interrupt = [] { throw std::runtime_error("interrupted"); };
  CHECK_THROWS_AS(load.engine->fetch_now(0, kInFirstBlock, interrupt), std::runtime_error);
}

TEST_CASE("a block that no one brings in is read after all, and that, too, can be ended") {
  FaultyFileIo* io = nullptr;
  SharedLoad load(&io);
  io->add({.operation = Operation::pread, .kind = FaultKind::stall, .to_offset = 1 * kMiB});
  const auto interrupt = [&] {
    if (io->wait_until_stalled(1, std::chrono::seconds(0))) throw std::runtime_error("interrupted");
  };
  CHECK_THROWS_AS(load.engine->fetch_now(0, kInFirstBlock, interrupt), std::runtime_error);
  io->release_stalled();
  CHECK_FALSE(load.engine->fetch_now(0, kInFirstBlock, [] {}));
}

TEST_CASE("in a block that failed every byte is read: a bad page counts as resident") {
  FaultyFileIo* io = nullptr;
  SharedLoad load(&io);
  load.checkpoint.kernel.make_resident("0.shard", {0, 1 * kMiB});
  io->add({.operation = Operation::pread, .from_offset = 500, .to_offset = 501});
  load.other->settle(*load.claim, Outcome::failed, 0);
  const auto error = load.engine->fetch_now(0, kInFirstBlock, [] {});
  REQUIRE(error);
  CHECK(error->errno_value == EIO);
  CHECK_FALSE(load.engine->fetch_now(0, {600, 1000}, [] {}));
}

// Its clock goes on when someone waits, and only then.
class WaitingClock final : public Runtime {
 public:
  Time now() noexcept override { return now_; }
  void wait_for_ring(const DoorbellWord&, std::uint32_t,
                     std::chrono::nanoseconds timeout) noexcept override {
    now_ += std::chrono::duration_cast<Time::duration>(timeout);
  }
  void start_thread(const std::string&, std::function<void()>) override {
    throw std::logic_error("there is nothing to do for a thread");
  }

 private:
  Time now_;
};

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

TEST_SUITE_END();
