// engine_pace: whole engines with a rate limit, on a virtual clock: what comes from the storage at
// any moment, who ends at once, and who is not held up.
#include <doctest/doctest.h>

#include <deque>
#include <functional>

#include "board_fixture.h"
#include "engine/engine.h"
#include "simulated_node.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

TEST_SUITE_BEGIN("engine_pace");

namespace {

constexpr std::uint64_t kBlockBytes = 256 * kKiB;
constexpr std::uint64_t kFileBytes = 8 * kMiB;

struct Load {
  std::uint64_t seed = 1;
  std::uint32_t ranks = 1;
  std::uint32_t threads = 4;
  std::uint64_t rate_limit_bytes_per_s = 1 * kMiB;
  bool on_board = true;
  bool consumer = false;
  // Reads what it is asked for, and nothing beside that.
  Strategy strategy = Strategy::fadvise;
  std::uint64_t read_window_bytes = 128 * kKiB;
  ByteRange warm = {};
};

class Node {
 public:
  using Body = std::function<void(Engine&, VirtualThreads&)>;

  Node(const Load& load, Body body)
      : load_(load),
        body_(std::move(body)),
        threads_(load.seed, [this](std::uint32_t) { look(); }),
        cache_({.bytes_per_second = 10 * kGiB, .read_window_bytes = load.read_window_bytes},
               {kFileBytes}) {
    if (!load.warm.empty()) cache_.load(0, load.warm, {});
    warm_bytes_ = cache_.read_bytes();
    for (std::uint32_t index = 0; index < load.ranks; ++index) {
      Rank& rank = ranks_.emplace_back(*this, index);
      threads_.start(index, [this, &rank] { live(rank); });
    }
  }
  ~Node() { CHECK(threads_.bury()); }
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  double run() {
    REQUIRE(threads_.run(Runtime::Time(hours(24 * 365 * 10))));
    return seconds_now();
  }
  [[nodiscard]] std::uint64_t read_bytes() const { return cache_.read_bytes() - warm_bytes_; }
  // As the reports of all ranks say.
  [[nodiscard]] std::uint64_t counted_read_bytes() const { return counted_read_bytes_; }
  [[nodiscard]] std::uint64_t counted_resident_bytes() const { return counted_resident_bytes_; }
  // The most that was ever read beyond what the rate allows.
  [[nodiscard]] double most_beyond() const { return most_beyond_; }

 private:
  struct Rank {
    Rank(Node& node, std::uint32_t index)
        : runtime(node.threads_, index, 1000),
          io(node.threads_, node.cache_, node.trace_, index, node.load_.seed + index) {}
    RankRuntime runtime;
    RankFileIo io;
  };

  [[nodiscard]] double seconds_now() const {
    return std::chrono::duration<double>(threads_.now().time_since_epoch()).count();
  }
  void look() {
    const double allowed = seconds_now() * static_cast<double>(load_.rate_limit_bytes_per_s);
    most_beyond_ = std::max(most_beyond_, static_cast<double>(read_bytes()) - allowed);
  }
  void live(Rank& rank) {
    const std::vector<std::string> paths = {RankFileIo::path(0)};
    const auto files = std::make_shared<FileTable>(rank.io, paths, 8);
    const auto plan = std::make_shared<const Plan>(
        std::vector<PlannedFile>{{kFileBytes, {}}},
        PlanOptions{.block_bytes = kBlockBytes, .head_block_bytes = kBlockBytes});
    const auto share = share_of(*plan, Partition::block, 0, 1);
    BoardRefusal refusal;
    std::unique_ptr<Claims> claims;
    if (load_.on_board) {
      claims = BoardClaims::join(folder_.path(""), kName, plan, share, refusal, {}, rank.runtime);
      REQUIRE(claims);
    } else {
      claims = std::make_unique<StaticClaims>(plan, share);
    }
    EngineOptions options;
    options.threads = load_.threads;
    options.strategy = load_.strategy;
    options.consumer = load_.consumer;
    options.tries_mounts = false;
    options.rate_limit_bytes_per_s = load_.rate_limit_bytes_per_s;
    Engine engine(rank.io, plan, files, std::move(claims), options, rank.runtime);
    body_(engine, threads_);
    const Report report = engine.report();
    counted_read_bytes_ += report.read_bytes;
    counted_resident_bytes_ += report.resident_bytes;
  }

  const Load load_;
  const Body body_;
  double most_beyond_ = 0;
  std::uint64_t warm_bytes_ = 0;
  std::uint64_t counted_read_bytes_ = 0;
  std::uint64_t counted_resident_bytes_ = 0;
  TemporaryFolder folder_{true};
  VirtualThreads threads_;
  PageCache cache_;
  Trace trace_{false};
  std::deque<Rank> ranks_;
};

void wait_for_end(Engine& engine, VirtualThreads& threads) {
  while (!engine.done() && !threads.burying()) threads.sleep(milliseconds(1));
  const Report report = engine.report();
  CHECK(report.settled_bytes() == report.planned_bytes);
}

constexpr double kBurst = static_cast<double>(kBlockBytes) + 0.1 * static_cast<double>(kMiB);
constexpr double kEnough = static_cast<double>(kFileBytes) / static_cast<double>(kMiB);  // seconds

}  // namespace

TEST_CASE("never more is read than the rate allows and a burst, and hardly less in the end") {
  for (const bool on_board : {true, false}) {
    for (const std::uint32_t threads : {1U, 4U, 16U}) {
      CAPTURE(on_board);
      CAPTURE(threads);
      Node node({.threads = threads, .on_board = on_board}, wait_for_end);
      const double took = node.run();
      CHECK(node.read_bytes() == kFileBytes);
      CHECK(node.most_beyond() <= kBurst);
      CHECK(took > kEnough - 1);
      CHECK(took < kEnough + 1);
    }
  }
}

TEST_CASE("ranks on a board have one limit between them") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    Node node({.seed = seed, .ranks = 4}, wait_for_end);
    const double took = node.run();
    CHECK(node.read_bytes() == kFileBytes);
    CHECK(node.most_beyond() <= kBurst);
    CHECK(took < kEnough + 1);
  }
}

TEST_CASE("what the kernel reads beyond a block is paid for, and was not resident") {
  constexpr std::uint64_t kReadWindowBytes = 4 * kBlockBytes;
  for (const bool on_board : {true, false}) {
    for (const std::uint32_t ranks : {1U, 4U}) {
      for (const std::uint32_t threads : {1U, 4U}) {
        if (!on_board && ranks > 1) continue;
        CAPTURE(on_board);
        CAPTURE(ranks);
        CAPTURE(threads);
        Node node({.ranks = ranks,
                   .threads = threads,
                   .on_board = on_board,
                   .strategy = Strategy::pread,
                   .read_window_bytes = kReadWindowBytes},
                  wait_for_end);
        const double took = node.run();
        CHECK(node.read_bytes() == kFileBytes);
        CHECK(node.counted_read_bytes() == kFileBytes);
        CHECK(node.counted_resident_bytes() == 0);
        CHECK(node.most_beyond() <= kBurst + static_cast<double>(kReadWindowBytes));
        CHECK(took > kEnough - 2);
      }
    }
  }
}

TEST_CASE("what was resident counts as that and costs nothing, however much is read around it") {
  constexpr ByteRange kWarm = {2 * kMiB + 16 * kKiB, 3 * kMiB};
  for (const std::uint32_t threads : {1U, 4U}) {
    CAPTURE(threads);
    Node node({.threads = threads,
               .strategy = Strategy::pread,
               .read_window_bytes = 4 * kBlockBytes,
               .warm = kWarm},
              wait_for_end);
    const double took = node.run();
    CHECK(node.counted_resident_bytes() == kWarm.length);
    CHECK(node.counted_read_bytes() == kFileBytes - kWarm.length);
    CHECK(took < kEnough - 2);
  }
}

TEST_CASE("without a limit it takes no longer than the storage does") {
  Node node({.rate_limit_bytes_per_s = 0}, wait_for_end);
  CHECK(node.run() < 1);
}

TEST_CASE("report and progress say whether the limit was what held it up") {
  for (const bool on_board : {true, false}) {
    for (const std::uint64_t limit : {kMiB, 100 * kGiB}) {
      CAPTURE(on_board);
      CAPTURE(limit);
      const Limit expected = limit == kMiB ? Limit::rate_limit : Limit::unknown;
      Node node({.rate_limit_bytes_per_s = limit, .on_board = on_board},
                [&](Engine& engine, VirtualThreads& threads) {
                  wait_for_end(engine, threads);
                  CHECK(engine.report().limited_by == expected);
                  CHECK(engine.progress().limited_by == expected);
                });
      node.run();
    }
  }
}

TEST_CASE("a load that is cancelled ends at once, however long its workers would have waited") {
  double ended = 0;
  Node node({.rate_limit_bytes_per_s = 1}, [&](Engine& engine, VirtualThreads& threads) {
    threads.sleep(seconds(5));
    const auto asked = threads.now();
    engine.cancel();
    while (!engine.done() && !threads.burying()) threads.sleep(nanoseconds(1000));
    ended = std::chrono::duration<double>(threads.now() - asked).count();
  });
  node.run();
  CHECK(node.read_bytes() <= kBlockBytes);
  CHECK(ended < 0.001);
}

TEST_CASE("a consumer is not held up: what does not move it reads by itself") {
  // A block in 72 hours.
  double waited = 0;
  const Load load = {.rate_limit_bytes_per_s = 1, .consumer = true};
  Node node(load, [&](Engine& engine, VirtualThreads& threads) {
    const auto asked = threads.now();
    CHECK_FALSE(engine.make_resident(0, {kFileBytes - kBlockBytes, kBlockBytes}));
    waited = std::chrono::duration<double>(threads.now() - asked).count();
    engine.consumed(kFileBytes, kFileBytes);
    engine.end_consumer();
    engine.cancel();
    while (!engine.done() && !threads.burying()) threads.sleep(milliseconds(1));
  });
  node.run();
  CHECK(waited < 10);
  CHECK(node.read_bytes() >= kBlockBytes);
}

TEST_SUITE_END();
