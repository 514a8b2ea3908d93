// engine: several that want different parts of the same blocks, and windows that count what is
// wanted.
#include <doctest/doctest.h>

#include "board/board.h"
#include "engine/engine.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("engine_wants");

namespace {

constexpr std::uint64_t kFileBytes = 16 * kMiB;
constexpr std::uint64_t kStretch = 1 * kMiB;
constexpr PlanOptions kBlocks{4 * kMiB, 4 * kMiB, 0};

std::shared_ptr<const Plan> plan_of_part(std::uint64_t begin, std::uint64_t end) {
  std::vector<ByteRange> spans;
  for (std::uint64_t at = 0; at < kFileBytes; at += kStretch) {
    spans.push_back({at + begin, end - begin});
  }
  return std::make_shared<const Plan>(std::vector<PlannedFile>{{kFileBytes, std::move(spans)}},
                                      kBlocks);
}

// Ranks of a board, each with a part of every stretch.
struct Ranks {
  explicit Ranks(SimulatedKernel kernel = {}) : checkpoint({kFileBytes}, kernel) {
    checkpoint.open(kBlocks);
  }

  // Boards first: then each knows what the others want.
  std::unique_ptr<Claims> join(const std::shared_ptr<const Plan>& plan) const {
    BoardRefusal refusal;
    auto board = BoardClaims::join(folder.path(""), "board", plan,
                                   share_of(*plan, Partition::block, 0, 1), refusal);
    REQUIRE(board);
    return board;
  }
  std::unique_ptr<Engine> start(const std::shared_ptr<const Plan>& plan,
                                std::unique_ptr<Claims> claims, Strategy strategy) const {
    return std::make_unique<Engine>(
        checkpoint.io, plan, checkpoint.files, std::move(claims),
        EngineOptions{.strategy = strategy, .threads = 2, .tries_mounts = false});
  }

  TemporaryFolder folder;
  SimulatedCheckpoint checkpoint;
};

void check_all_there(const Engine& engine, std::uint64_t planned_bytes) {
  const Report report = engine.report();
  CHECK(report.planned_bytes == planned_bytes);
  CHECK(report.settled_bytes() == planned_bytes);
  CHECK(report.failed_bytes == 0);
}

}  // namespace

TEST_CASE("engines read what any of them wants, once, and nothing else") {
  for (const Strategy strategy : kStrategies) {
    CAPTURE(std::string(to_string(strategy)));
    const Ranks ranks({.populate_bytes = kPopulateBytes});
    const std::vector<std::shared_ptr<const Plan>> plans = {plan_of_part(0, 256 * kKiB),
                                                            plan_of_part(128 * kKiB, 320 * kKiB),
                                                            plan_of_part(640 * kKiB, 704 * kKiB)};
    std::vector<std::unique_ptr<Claims>> claims;
    for (const auto& plan : plans) claims.push_back(ranks.join(plan));
    std::vector<std::unique_ptr<Engine>> engines;
    for (std::size_t i = 0; i < plans.size(); ++i) {
      engines.push_back(ranks.start(plans[i], std::move(claims[i]), strategy));
    }
    for (std::size_t i = 0; i < plans.size(); ++i) {
      REQUIRE(engines[i]->wait(kHangBound));
      check_all_there(*engines[i], plans[i]->wanted_bytes());
    }
    const std::uint64_t union_bytes = kFileBytes / kStretch * (320 + 64) * kKiB;
    CHECK(ranks.checkpoint.kernel.served_bytes() == union_bytes);
    CHECK(ranks.checkpoint.resident_bytes() == union_bytes);
    CHECK(ranks.checkpoint.kernel.most_loads_of_a_page() == 1);
  }
}

TEST_CASE("who comes when all is done reads its own part, and no more") {
  const Ranks ranks;
  const auto first = plan_of_part(0, 256 * kKiB);
  const auto second = plan_of_part(128 * kKiB, 300 * kKiB);
  auto kept = ranks.join(first);  // the board stays
  const auto early = ranks.start(first, ranks.join(first), Strategy::fadvise);
  REQUIRE(early->wait(kHangBound));
  const auto late = ranks.start(second, ranks.join(second), Strategy::fadvise);
  REQUIRE(late->wait(kHangBound));
  check_all_there(*late, second->wanted_bytes());
  CHECK(late->report().shared_bytes == kFileBytes / kStretch * 128 * kKiB);
  CHECK(late->report().resident_bytes == 0);
  CHECK(ranks.checkpoint.kernel.served_bytes() == kFileBytes / kStretch * 300 * kKiB);
}

TEST_CASE("a part that cannot be read fails whoever wants it, and the block for all") {
  const Ranks ranks({.read_window_bytes = 4096});
  const std::uint64_t spoiled = 256 * kKiB - page_bytes();
  ranks.checkpoint.kernel.spoil("0.shard", {spoiled, page_bytes()});
  const auto wants_it = plan_of_part(0, 256 * kKiB);
  const auto does_not = plan_of_part(640 * kKiB, 704 * kKiB);
  auto claims = ranks.join(wants_it);
  const auto other = ranks.start(does_not, ranks.join(does_not), Strategy::fadvise);
  const auto one = ranks.start(wants_it, std::move(claims), Strategy::fadvise);
  for (const auto* engine : {&one, &other}) {
    REQUIRE((*engine)->wait(kHangBound));
    CHECK((*engine)->report().settled_bytes() == (*engine)->report().planned_bytes);
  }
  CHECK(one->report().failed_bytes > 0);
}

TEST_CASE("without a board a window counts what its rank wants") {
  SimulatedCheckpoint checkpoint({kFileBytes});
  checkpoint.open(kBlocks);
  const auto plan = plan_of_part(0, kStretch / 8);
  Engine engine(checkpoint.io, plan, checkpoint.files,
                std::make_unique<StaticClaims>(plan, share_of(*plan, Partition::block, 0, 1)),
                {.threads = 2, .window_bytes = 1 * kMiB, .tries_mounts = false});
  REQUIRE(engine.wait(kHangBound));
  // 1 MiB is an eighth of two blocks of 4 MiB.
  CHECK(engine.report().read_bytes == 1 * kMiB);
  CHECK(engine.report().left_out_bytes == 1 * kMiB);
  CHECK(checkpoint.kernel.served_bytes() == 1 * kMiB);
}

TEST_SUITE_END();
