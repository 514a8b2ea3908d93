// doorbell: whom a ring wakes, and that no one sleeps through what there is to do: engines of
// several ranks on a virtual clock, where every wait is counted and none has to end by time.
#include "base/doorbell.h"

#include <doctest/doctest.h>

#include <deque>

#include "board_fixture.h"
#include "engine/engine.h"
#include "simulated_node.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;
using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;

TEST_SUITE_BEGIN("doorbell");

namespace {

constexpr auto kEnd = Runtime::Time(hours(24));
constexpr auto kForEver = hours(1);
constexpr std::uint64_t kBlockBytes = 256 * kKiB;
constexpr std::uint64_t kFileBytes = 8 * kMiB;
constexpr std::uint64_t kBlocks = 2 * kFileBytes / kBlockBytes;

struct Load {
  std::uint64_t seed = 1;
  std::uint32_t ranks = 3;
  std::uint32_t threads = 16;
  std::uint64_t window_bytes = 0;
  std::uint64_t tensor_bytes = 0;  // 0: no consumer
  microseconds work{20};           // after each tensor
  std::uint64_t inflight_bytes = 4 * kBlockBytes;
  milliseconds round_trip{1};
};

struct Waits {
  std::uint64_t all = 0;
  std::uint64_t ended_by_time = 0;
  std::chrono::nanoseconds took{0};  // on the virtual clock
};

// Counts waits; none of them ends by time before long.
class CountingRuntime final : public Runtime {
 public:
  CountingRuntime(VirtualThreads& threads, std::uint32_t rank, Waits& waits)
      : threads_(threads), inner_(threads, rank, 1000), waits_(waits) {}

  Time now() noexcept override { return inner_.now(); }
  void wait_for_ring(const DoorbellWord& word, std::uint32_t seen,
                     std::chrono::nanoseconds) noexcept override {
    ++waits_.all;
    const Time began = threads_.now();
    inner_.wait_for_ring(word, seen, kForEver);
    if (threads_.now() - began >= kForEver) ++waits_.ended_by_time;
  }
  void ring_one(DoorbellWord& word) noexcept override { inner_.ring_one(word); }
  void ring_unheard(DoorbellWord& word) noexcept override { inner_.ring_unheard(word); }
  void start_thread(const std::string& name, std::function<void()> body) override {
    inner_.start_thread(name, std::move(body));
  }

 private:
  VirtualThreads& threads_;
  RankRuntime inner_;
  Waits& waits_;
};

class Node {
 public:
  explicit Node(const Load& load) : load_(load), threads_(load.seed, [](std::uint32_t) {}) {
    for (std::uint32_t index = 0; index < load.ranks; ++index) {
      Rank& rank = ranks_.emplace_back(*this, index);
      threads_.start(index, [this, &rank] { live(rank); });
    }
  }
  ~Node() { CHECK(threads_.bury()); }
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  Waits run() {
    REQUIRE(threads_.run(kEnd));
    CHECK(done_ == load_.ranks);
    waits_.took = threads_.now().time_since_epoch();
    return waits_;
  }

 private:
  struct Rank {
    Rank(Node& node, std::uint32_t index)
        : runtime(node.threads_, index, node.waits_),
          io(node.threads_, node.cache_, node.trace_, index, node.load_.seed + index) {}
    CountingRuntime runtime;
    RankFileIo io;
  };

  void live(Rank& rank) {
    const std::vector<std::string> paths = {RankFileIo::path(0), RankFileIo::path(1)};
    const auto files = std::make_shared<FileTable>(rank.io, paths, 8);
    const auto plan = std::make_shared<const Plan>(
        std::vector<PlannedFile>{{kFileBytes, {}}, {kFileBytes, {}}},
        PlanOptions{.block_bytes = kBlockBytes, .head_block_bytes = kBlockBytes});
    BoardRefusal refusal;
    auto board =
        BoardClaims::join(folder_.path(""), kName, plan, share_of(*plan, Partition::block, 0, 1),
                          refusal, {load_.inflight_bytes}, rank.runtime);
    REQUIRE(board);
    const bool consumes = load_.tensor_bytes > 0;
    const EngineOptions options = {.threads = load_.threads,
                                   .window_bytes = load_.window_bytes,
                                   .consumer = consumes,
                                   .tries_mounts = false};
    Engine engine(rank.io, plan, files, std::move(board), options, rank.runtime);
    if (consumes) consume(engine, *plan);
    while (!engine.done() && !threads_.burying()) threads_.sleep(milliseconds(20));
    done_ += engine.report().left_out_bytes == 0 ? 1U : 0U;
  }

  void consume(Engine& engine, const Plan& plan) {
    for (std::uint64_t at = 0; at < plan.total_bytes(); at += load_.tensor_bytes) {
      const ByteRange range = {at % kFileBytes, load_.tensor_bytes};
      engine.consumed(at, at + load_.tensor_bytes);
      CHECK_FALSE(engine.make_resident(at / kFileBytes, range));
      threads_.sleep(load_.work);
    }
    engine.consumed(plan.total_bytes(), plan.total_bytes());
    engine.end_consumer();
  }

  const Load load_;
  Waits waits_;
  std::uint32_t done_ = 0;
  TemporaryFolder folder_{true};
  VirtualThreads threads_;
  PageCache cache_{{.round_trip = load_.round_trip}, {kFileBytes, kFileBytes}};
  Trace trace_{false};
  std::deque<Rank> ranks_;
};

}  // namespace

TEST_CASE("a block that is settled wakes one thread of each rank, not all") {
  for (const std::uint32_t threads : {2U, 16U, 64U}) {
    CAPTURE(threads);
    const Load load = {.threads = threads};
    const Waits waits = Node(load).run();
    // Each thread has found nothing to do once, at the beginning.
    CHECK(waits.all < kBlocks * 2 * load.ranks + std::uint64_t{2} * load.ranks * threads);
    CHECK(waits.ended_by_time == 0);
  }
}

TEST_CASE("a tensor wakes workers where it opens the window for a block, else no one") {
  constexpr std::uint64_t kTensorBytes = 4 * kKiB;
  const Load load = {
      .window_bytes = 1 * kMiB, .tensor_bytes = kTensorBytes, .work = microseconds(100)};
  const Waits waits = Node(load).run();
  // Settled blocks ring, and opened ones; consumers wait for settled ones.
  constexpr std::uint64_t kRings = 3 * kBlocks;
  CHECK(waits.all < kRings * 2 * load.ranks + std::uint64_t{2} * load.ranks * load.threads);
  CHECK(waits.all < load.ranks * 2 * kFileBytes / kTensorBytes);
  CHECK(waits.ended_by_time == 0);
}

TEST_CASE("what opens at once is brought in at once") {
  constexpr std::uint64_t kBlocksOfATensor = 8;
  const Load load = {.ranks = 1,
                     .window_bytes = kBlocksOfATensor * kBlockBytes,
                     .tensor_bytes = kBlocksOfATensor * kBlockBytes,
                     .work = milliseconds(1),
                     .inflight_bytes = 16 * kBlockBytes,
                     .round_trip = milliseconds(100)};
  const Waits waits = Node(load).run();
  // The window is one tensor. Its blocks take a round trip each, one after the other.
  constexpr std::uint64_t kTensors = kBlocks / kBlocksOfATensor;
  CHECK(waits.took < kTensors * 2 * load.round_trip);
  CHECK(waits.ended_by_time == 0);
}

TEST_CASE("no one sleeps through what there is to do") {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    Random random(seed);
    Load load = {.seed = seed};
    load.ranks = static_cast<std::uint32_t>(random.between(1, 4));
    load.threads = static_cast<std::uint32_t>(random.between(1, 12));
    if (random.chance(70)) load.tensor_bytes = 16 * kKiB << random.below(6);
    if (load.tensor_bytes > 0 && random.chance(70)) load.window_bytes = kMiB << random.below(3);
    load.inflight_bytes = kBlockBytes << random.below(5);
    load.work = microseconds(5) * (load.tensor_bytes / (4 * kKiB) << random.below(6));
    CHECK(Node(load).run().ended_by_time == 0);
  }
}

TEST_CASE("threads of the system, whose waits do not end by time, bring everything in") {
  class SleepyRuntime final : public Runtime {
   public:
    Time now() noexcept override { return system_runtime().now(); }
    void wait_for_ring(const DoorbellWord& word, std::uint32_t seen,
                       std::chrono::nanoseconds) noexcept override {
      system_runtime().wait_for_ring(word, seen, kForEver);
    }
    void start_thread(const std::string& name, std::function<void()> body) override {
      system_runtime().start_thread(name, std::move(body));
    }
  };
  for (int round = 0; round < 10; ++round) {
    const TemporaryFolder folder(true);
    SimulatedCheckpoint checkpoint({kFileBytes});
    checkpoint.open({.block_bytes = 64 * kKiB, .head_block_bytes = 64 * kKiB});
    std::vector<std::unique_ptr<Engine>> ranks;
    for (int rank = 0; rank < 3; ++rank) {
      BoardRefusal refusal;
      auto board = BoardClaims::join(folder.path(""), kName, checkpoint.plan,
                                     checkpoint.whole_share(), refusal, {4 * 64 * kKiB});
      REQUIRE(board);
      ranks.push_back(std::make_unique<Engine>(
          checkpoint.io, checkpoint.plan, checkpoint.files, std::move(board),
          EngineOptions{.threads = 8, .tries_mounts = false}, immortal<SleepyRuntime>()));
    }
    for (const auto& engine : ranks) CHECK(engine->wait(kHangBound));
    for (const auto& engine : ranks) CHECK(engine->report().left_out_bytes == 0);
  }
}

TEST_SUITE_END();
