// engine: healthy files under every strategy and number of threads.
#include "engine/engine.h"

#include <doctest/doctest.h>

#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <stdexcept>

#include "board/board.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("engine");

namespace {

constexpr PlanOptions kSmallBlocks{256 * kKiB, 64 * kKiB, 2};

std::vector<std::uint64_t> random_sizes(std::mt19937_64& random) {
  std::vector<std::uint64_t> sizes_bytes(1 + random() % 6);
  for (std::uint64_t& size : sizes_bytes) size = random() % (2 * kMiB);
  sizes_bytes[random() % sizes_bytes.size()] = 0;
  return sizes_bytes;
}

void check_sum(const Report& report) {
  CHECK(report.resident_bytes + report.read_bytes + report.shared_bytes + report.failed_bytes +
            report.left_out_bytes ==
        report.planned_bytes);
  CHECK(report.lost_bytes <= report.read_bytes);
}

// The blocks in the order in which they were first asked for.
std::vector<std::size_t> order_of(const SimulatedCheckpoint& checkpoint) {
  std::map<std::pair<std::string, std::uint64_t>, std::size_t> block_at;
  const auto& blocks = checkpoint.plan->blocks();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    block_at[{SimulatedCheckpoint::path(blocks[i].file), blocks[i].range.offset}] = i;
  }
  std::set<std::size_t> seen;
  std::vector<std::size_t> order;
  for (const Request& request : checkpoint.kernel.requests()) {
    const auto found = block_at.find({request.path, request.range.offset});
    if (request.range.empty() || found == block_at.end()) continue;
    if (seen.insert(found->second).second) order.push_back(found->second);
  }
  return order;
}

}  // namespace

TEST_CASE("every strategy brings in all bytes exactly once, with any number of threads") {
  std::uint64_t seed = 0;
  for (const Strategy strategy : kStrategies) {
    for (const std::uint32_t threads : {1U, 2U, 3U, 8U, 16U}) {
      CAPTURE(++seed);
      CAPTURE(std::string(to_string(strategy)));
      CAPTURE(threads);
      std::mt19937_64 random(seed);
      SimulatedCheckpoint checkpoint(random_sizes(random), {.advise_clip_bytes = 128 * kKiB});
      checkpoint.open(kSmallBlocks, 1 + random() % 6);
      const auto engine = checkpoint.start({.strategy = strategy, .threads = threads});
      REQUIRE(engine->wait(kHangBound));
      const std::uint64_t total_bytes = checkpoint.plan->total_bytes();
      CHECK(checkpoint.resident_bytes() == total_bytes);
      CHECK(checkpoint.kernel.served_bytes() == total_bytes);
      CHECK(checkpoint.kernel.most_loads_of_a_page() <= 1);
      const Report report = engine->report();
      check_sum(report);
      CHECK(report.planned_bytes == total_bytes);
      CHECK(report.resident_bytes + report.read_bytes == total_bytes);
      CHECK(report.done);
      CHECK_FALSE(report.cancelled);
      CHECK(report.error_count == 0);
      CHECK(engine->progress().done_bytes == total_bytes);
    }
  }
}

TEST_CASE("blocks are claimed in ascending order") {
  for (const std::uint32_t threads : {1U, 4U, 16U}) {
    CAPTURE(threads);
    SimulatedCheckpoint checkpoint({3 * kMiB, 100, 5 * kMiB});
    checkpoint.open(kSmallBlocks);
    const auto engine = checkpoint.start({.threads = threads});
    REQUIRE(engine->wait(kHangBound));
    const auto order = order_of(checkpoint);
    REQUIRE(order.size() == checkpoint.plan->blocks().size());
    // A claimed block may still be waiting to be asked for in each of the other threads.
    for (std::size_t i = 0; i < order.size(); ++i) CHECK(order[i] < i + threads);
  }
}

TEST_CASE("a second prefetch finds everything resident") {
  SimulatedCheckpoint checkpoint({3 * kMiB, 2 * kMiB});
  checkpoint.open(kSmallBlocks);
  REQUIRE(checkpoint.start({})->wait(kHangBound));
  const auto advices = checkpoint.io.calls(Operation::fadvise_willneed);
  const auto again = checkpoint.start({});
  REQUIRE(again->wait(kHangBound));
  CHECK(again->report().resident_bytes == 5 * kMiB);
  CHECK(again->report().read_bytes == 0);
  CHECK(checkpoint.io.calls(Operation::fadvise_willneed) == advices);
}

TEST_CASE("the ranks of a node read each byte once between them") {
  for (const Partition partition : {Partition::block, Partition::file}) {
    SimulatedCheckpoint checkpoint({3 * kMiB, 1 * kMiB, 2 * kMiB, 5 * kMiB});
    checkpoint.open(kSmallBlocks);
    std::vector<std::unique_ptr<Engine>> ranks;
    std::uint64_t planned_bytes = 0;
    for (std::int64_t rank = 0; rank < 3; ++rank) {
      ranks.push_back(std::make_unique<Engine>(
          checkpoint.io, checkpoint.plan, checkpoint.files,
          std::make_unique<StaticClaims>(checkpoint.plan,
                                         share_of(*checkpoint.plan, partition, rank, 3)),
          EngineOptions{.threads = 2}));
    }
    for (const auto& engine : ranks) {
      REQUIRE(engine->wait(kHangBound));
      check_sum(engine->report());
      planned_bytes += engine->report().planned_bytes;
    }
    CHECK(planned_bytes == 11 * kMiB);
    CHECK(checkpoint.kernel.served_bytes() == 11 * kMiB);
    CHECK(checkpoint.resident_bytes() == 11 * kMiB);
  }
}

TEST_CASE("engines that share a board read each byte once between them, and all see the end") {
  const TemporaryFolder folder;
  SimulatedCheckpoint checkpoint({3 * kMiB, 1 * kMiB, 2 * kMiB, 5 * kMiB});
  checkpoint.open(kSmallBlocks);
  std::vector<std::unique_ptr<Engine>> ranks;
  for (int rank = 0; rank < 3; ++rank) {
    BoardRefusal refusal;
    auto board = BoardClaims::join(folder.path(""), "board", checkpoint.plan,
                                   share_of(*checkpoint.plan, Partition::block, 0, 1), refusal);
    REQUIRE(board);
    ranks.push_back(std::make_unique<Engine>(checkpoint.io, checkpoint.plan, checkpoint.files,
                                             std::move(board),
                                             EngineOptions{.threads = 2, .tries_mounts = false}));
  }
  std::uint64_t read_bytes = 0;
  for (const auto& engine : ranks) {
    REQUIRE(engine->wait(kHangBound));
    const Report report = engine->report();
    check_sum(report);
    CHECK(report.planned_bytes == 11 * kMiB);
    CHECK(report.left_out_bytes == 0);
    read_bytes += report.read_bytes;
  }
  CHECK(read_bytes == 11 * kMiB);
  CHECK(checkpoint.kernel.served_bytes() == 11 * kMiB);
  ranks.clear();
}

TEST_CASE("a block that comes back to the same engine is counted once") {
  // As when it was taken over from one thread, and taken again by another.
  class TwiceClaims final : public Claims {
   public:
    explicit TwiceClaims(const std::shared_ptr<const Plan>& plan)
        : inner_(plan, share_of(*plan, Partition::block, 0, 1)) {}
    [[nodiscard]] const std::vector<std::uint32_t>& wanted() const noexcept override {
      return inner_.wanted();
    }
    std::optional<Claim> take(std::uint64_t limit_bytes) override {
      if (again_) return std::exchange(again_, std::nullopt);
      return again_ = inner_.take(limit_bytes);
    }
    [[nodiscard]] std::vector<ByteRange> ranges(const Claim& claim) const override {
      return inner_.ranges(claim);
    }
    void note_resident(std::uint32_t block, std::uint64_t bytes) noexcept override {
      inner_.note_resident(block, bytes);
    }
    [[nodiscard]] std::optional<std::uint64_t> noted_resident(
        std::uint32_t block) const noexcept override {
      return inner_.noted_resident(block);
    }
    void settle(const Claim&, Outcome, std::uint64_t) override {}
    [[nodiscard]] std::uint64_t window_end(std::uint64_t window_bytes,
                                           const ConsumerPosition& consumer) const override {
      return inner_.window_end(window_bytes, consumer);
    }
    [[nodiscard]] std::uint64_t behind(std::uint64_t position,
                                       std::uint64_t wanted_bytes) const override {
      return inner_.behind(position, wanted_bytes);
    }
    bool settled(std::uint64_t limit_bytes) override { return inner_.settled(limit_bytes); }
    DoorbellWord& doorbell() noexcept override { return inner_.doorbell(); }

   private:
    StaticClaims inner_;
    std::optional<Claim> again_;
  };
  SimulatedCheckpoint checkpoint({2 * kMiB});
  checkpoint.open(kSmallBlocks);
  Engine engine(checkpoint.io, checkpoint.plan, checkpoint.files,
                std::make_unique<TwiceClaims>(checkpoint.plan),
                {.threads = 1, .tries_mounts = false});
  REQUIRE(engine.wait(kHangBound));
  CHECK(engine.report().read_bytes == 2 * kMiB);
  check_sum(engine.report());
}

TEST_CASE("only the wanted spans are read, and counted as they were asked for") {
  SimulatedCheckpoint checkpoint({4 * kMiB, 4 * kMiB}, {.read_window_bytes = 4096});
  checkpoint.open(kSmallBlocks);
  std::vector<PlannedFile> files(2);
  files[0] = {4 * kMiB, std::vector<ByteRange>{{100, 200}, {1000, 50}, {3 * kMiB, 10000}}};
  files[1] = {4 * kMiB, std::vector<ByteRange>{}};
  checkpoint.plan = std::make_shared<const Plan>(std::move(files), kSmallBlocks);
  const auto engine = checkpoint.start({.threads = 2});
  REQUIRE(engine->wait(kHangBound));
  CHECK(engine->report().planned_bytes == 10250);
  check_sum(engine->report());
  CHECK(checkpoint.kernel.resident_bytes("1.shard") == 0);
  CHECK(checkpoint.kernel.resident_bytes("0.shard") ==
        page_bytes() + align_up(10000, page_bytes()));
}

TEST_CASE("an empty share is done at once") {
  SimulatedCheckpoint checkpoint({0, 0});
  checkpoint.open();
  const auto engine = checkpoint.start({});
  CHECK(engine->done());
  CHECK(engine->wait(std::chrono::nanoseconds(0)));
  const Report report = engine->report();
  CHECK(report.done);
  CHECK(report.threads == 0);
  CHECK(report.planned_bytes == 0);
  engine->cancel();
  CHECK_FALSE(engine->cancelled());  // there was nothing left to cancel
}

TEST_CASE("threads out of range are refused, with the value") {
  SimulatedCheckpoint checkpoint({100});
  checkpoint.open();
  CHECK_THROWS_WITH_AS(checkpoint.start({.threads = 0}), "threads must be between 1 and 256, not 0",
                       std::invalid_argument);
  CHECK_THROWS_AS(checkpoint.start({.threads = kMaxThreads + 1}), std::invalid_argument);
}

TEST_CASE("no more threads are started than there are blocks") {
  SimulatedCheckpoint checkpoint({100, 100});
  checkpoint.open();
  const auto engine = checkpoint.start({.threads = 256});
  REQUIRE(engine->wait(kHangBound));
  CHECK(engine->report().threads == 2);
}

TEST_CASE("the report says what was used") {
  const auto report_of = [](const SimulatedKernel& kernel, Strategy strategy) {
    SimulatedCheckpoint checkpoint({8 * kMiB}, kernel);
    checkpoint.open();
    const auto engine = checkpoint.start({.strategy = strategy, .threads = 1});
    REQUIRE(engine->wait(kHangBound));
    return engine->report();
  };
  const Report advised = report_of({.advise_clip_bytes = 256 * kKiB}, Strategy::automatic);
  CHECK(advised.strategy == "auto");
  CHECK(advised.strategy_used == "fadvise");
  CHECK(advised.step_bytes == 256 * kKiB);
  CHECK(advised.step_source == "measured");
  CHECK(report_of({.advise_clip_bytes = 0}, Strategy::automatic).strategy_used == "pread");
  CHECK(report_of({}, Strategy::readahead).strategy_used == "readahead");
  CHECK(report_of({}, Strategy::pread).step_source == "assumed");
}

TEST_CASE("waiting may be asked to last for ever") {
  SimulatedCheckpoint checkpoint({4 * kMiB});
  checkpoint.open(kSmallBlocks);
  checkpoint.io.add({.kind = FaultKind::stall});
  const auto engine = checkpoint.start({.threads = 1});
  REQUIRE(checkpoint.io.wait_until_stalled(1, kHangBound));
  checkpoint.io.release_stalled();
  CHECK(engine->wait(std::chrono::nanoseconds::max()));
  CHECK(engine->done());
}

TEST_CASE("what is in flight are the blocks that workers are at") {
  SimulatedCheckpoint checkpoint({4 * kMiB});
  checkpoint.open(kSmallBlocks);
  checkpoint.io.add({.kind = FaultKind::stall});
  const auto engine = checkpoint.start({.strategy = Strategy::pread, .threads = 3});
  REQUIRE(checkpoint.io.wait_until_stalled(3, kHangBound));
  const auto& blocks = checkpoint.plan->blocks();  // the first three
  CHECK(engine->progress().claimed_bytes ==
        blocks[0].range.length + blocks[1].range.length + blocks[2].range.length);
  CHECK(engine->progress().read_bytes == 0);
  checkpoint.io.release_stalled();
  REQUIRE(engine->wait(kHangBound));
  CHECK(engine->progress().claimed_bytes == 0);
  const Report report = engine->report();
  CHECK(engine->progress().read_bytes == report.read_bytes);
  // What the trial has read may be resident for the worker that comes to it.
  CHECK(report.read_bytes + report.resident_bytes == 4 * kMiB);
}

TEST_CASE("at the end of a prefetch its board is left, however long its threads still take to go") {
  class LingeringRuntime final : public Runtime {
   public:
    Time now() noexcept override { return system_runtime().now(); }
    void wait_for_ring(const DoorbellWord& word, std::uint32_t seen,
                       std::chrono::nanoseconds timeout) noexcept override {
      system_runtime().wait_for_ring(word, seen, timeout);
    }
    void start_thread(const std::string& name, std::function<void()> body) override {
      bodies_.push_back(std::move(body));
      system_runtime().start_thread(name, [&body = bodies_.back()] { body(); });
    }

   private:
    std::deque<std::function<void()>> bodies_;
  };
  const TemporaryFolder folder(true);
  SimulatedCheckpoint checkpoint({4 * kMiB});
  checkpoint.open(kSmallBlocks);
  BoardRefusal refusal;
  auto board = BoardClaims::join(folder.path(""), "board", checkpoint.plan,
                                 checkpoint.whole_share(), refusal);
  REQUIRE(board);
  Engine engine(checkpoint.io, checkpoint.plan, checkpoint.files, std::move(board), {.threads = 3},
                immortal<LingeringRuntime>());
  CHECK_FALSE(std::filesystem::is_empty(folder.path("")));
  REQUIRE(engine.wait(kHangBound));
  CHECK(std::filesystem::is_empty(folder.path("")));
}

TEST_CASE("populating does not spoil the descriptor that advice goes through") {
  SimulatedCheckpoint checkpoint({256 * kMiB}, {.advise_clip_bytes = 128 * kKiB,
                                                .populate_bytes = 3 * kMiB,
                                                .populate_spoils_advice = true});
  checkpoint.open();
  const auto engine = checkpoint.start({.threads = 1});
  REQUIRE(engine->wait(kHangBound));
  const Report report = engine->report();
  CHECK(report.read_bytes + report.resident_bytes == 256 * kMiB);
  CHECK(report.strategy_used == "populate");
  CHECK(report.lost_bytes == 0);
  CHECK(checkpoint.io.calls(Operation::open) == 3);  // and one to see whether pages stay
}

TEST_SUITE_END();
