// board_pace: participants that are stopped, alive but slow, or awake again; and what may be in
// flight, whoever sets it and whoever climbs. On a clock that the tests move.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>

#include "board/board_memory.h"
#include "board_fixture.h"

using namespace shardahead;
using namespace shardahead::testing;
using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_SUITE_BEGIN("board_pace");

namespace {

class ManualClock final : public Runtime {
 public:
  void pass(std::chrono::nanoseconds time) {
    now_ += std::chrono::duration_cast<Time::duration>(time);
  }
  Time now() noexcept override { return now_; }
  void wait_for_ring(const DoorbellWord&, std::uint32_t,
                     std::chrono::nanoseconds) noexcept override {}
  void start_thread(const std::string&, std::function<void()>) override {
    throw std::logic_error("a board has no threads");
  }

 private:
  Time now_{seconds(1000)};
};

class Node {
 public:
  explicit Node(std::size_t blocks) : Node(plan_of(blocks)) {}
  explicit Node(std::shared_ptr<const Plan> made) : plan(std::move(made)) {}

  std::unique_ptr<BoardClaims> join(const BoardOptions& options = {},
                                    std::optional<std::vector<std::uint32_t>> wanted = {}) {
    BoardRefusal refusal;
    auto board = BoardClaims::join(folder.path(""), kName, plan,
                                   wanted ? *wanted : share_of(*plan, Partition::block, 0, 1),
                                   refusal, options, clock);
    REQUIRE(board);
    return board;
  }
  // As one of its workers does that finds nothing to take.
  void look(BoardClaims& board, std::chrono::nanoseconds time) {
    for (; time > time.zero(); time -= milliseconds(100)) {
      clock.pass(milliseconds(100));
      board.recover(false);
    }
  }
  // So that it is known how long a block takes.
  void settle_some(BoardClaims& board, std::chrono::nanoseconds block_time) {
    for (int i = 0; i < 2; ++i) {
      const auto claim = board.take(kNoLimit);
      REQUIRE(claim);
      clock.pass(block_time);
      board.settle(*claim, Outcome::done, 1);
    }
  }

  const TemporaryFolder folder;
  const std::shared_ptr<const Plan> plan;
  ManualClock clock;
};

std::vector<std::uint32_t> taken_by(BoardClaims& board) {
  std::vector<std::uint32_t> blocks;
  while (const auto claim = board.take(kNoLimit)) blocks.push_back(claim->block);
  return blocks;
}

}  // namespace

TEST_CASE("all claims of one that shows no life are taken over at once, by the pace of the load") {
  Node node(6);
  const auto board = node.join();
  const auto stopped = node.join();
  node.settle_some(*board, milliseconds(50));
  for (int i = 0; i < 3; ++i) stopped->take(kNoLimit);
  node.look(*board, milliseconds(900));
  CHECK(taken_by(*board) == std::vector<std::uint32_t>{5});
  node.look(*board, milliseconds(200));
  CHECK(taken_by(*board) == std::vector<std::uint32_t>{2, 3, 4});
}

TEST_CASE("where blocks take long, and where none is known, one may be silent for longer") {
  for (const bool known : {true, false}) {
    CAPTURE(known);
    Node node(4);
    const auto board = node.join();
    const auto stopped = node.join();
    if (known) node.settle_some(*board, milliseconds(1300));
    const auto claim = stopped->take(kNoLimit);
    while (board->take(kNoLimit)) {
    }
    node.look(*board, known ? milliseconds(3800) : milliseconds(9900));
    CHECK_FALSE(board->take(kNoLimit));
    node.look(*board, milliseconds(300));
    CHECK(board->take(kNoLimit).value().block == claim.value().block);
  }
}

TEST_CASE("who shows life keeps its claims, however long it has them") {
  Node node(4);
  const auto board = node.join();
  const auto slow = node.join();
  node.settle_some(*board, milliseconds(10));
  CHECK(slow->take(kNoLimit));
  CHECK(board->take(kNoLimit));
  const std::vector<std::function<void()>> signs = {
      [&] { slow->take(0); },
      [&] { CHECK_FALSE(slow->settled(kNoLimit)); },
      [&] { slow->recover(false); },
      [&] { CHECK(slow->standing({0, 4})); },
      [&] { slow->report_consumer({}); },
      [&] { slow->slowest_consumer(node.clock.now()); },
  };
  for (const auto& sign : signs) {
    node.look(*board, milliseconds(900));
    sign();
    CHECK_FALSE(board->take(kNoLimit));
  }
}

TEST_CASE("a node that was stopped as a whole takes nothing over when it goes on") {
  Node node(4);
  const auto board = node.join();
  const auto other = node.join();
  node.settle_some(*board, milliseconds(10));
  CHECK(other->take(kNoLimit));
  CHECK(board->take(kNoLimit));
  node.look(*board, milliseconds(200));
  node.clock.pass(seconds(600));
  board->recover(false);
  CHECK_FALSE(board->take(kNoLimit));
}

TEST_CASE("what one that shows no life has is not in flight, wanted by others or not") {
  Node node(6);
  const auto board = node.join({3 * kMinBlockBytes}, std::vector<std::uint32_t>{0, 1, 2, 5});
  const auto stopped = node.join({}, std::vector<std::uint32_t>{3, 4});
  node.settle_some(*board, milliseconds(10));
  CHECK(stopped->take(kNoLimit));
  CHECK(stopped->take(kNoLimit));
  CHECK(board->take(kNoLimit).value().block == 2);
  CHECK_FALSE(board->take(kNoLimit));
  for (int i = 0; i < 12; ++i) {
    node.clock.pass(milliseconds(100));
    const auto claim = board->take(kNoLimit);  // none of its workers looks for claims of others
    CHECK(claim.has_value() == (i == 9));
    if (claim) CHECK(claim->block == 5);
  }
}

TEST_CASE("who wakes up loses nothing and spoils nothing") {
  Node node(4);
  const auto board = node.join();
  const auto stopped = node.join();
  node.settle_some(*board, milliseconds(10));
  const auto first = stopped->take(kNoLimit).value();
  const auto second = stopped->take(kNoLimit).value();
  node.look(*board, milliseconds(1200));
  const auto again = board->take(kNoLimit).value();
  REQUIRE(again.block == first.block);
  stopped->settle(first, Outcome::failed, 0);  // it is another's now
  CHECK(board->standing({2, 3})->claimed);
  board->settle(again, Outcome::done, 0);
  stopped->settle(second, Outcome::done, 0);  // no one has taken it since: it is still to do
  CHECK(board->standing({3, 4})->unsettled == 1);
  board->settle(board->take(kNoLimit).value(), Outcome::done, 0);
  CHECK(stopped->settled(kNoLimit));
  CHECK_FALSE(board->standing({0, 4})->failed);
  // Each counts what it took by itself, and of the rest what the others did.
  CHECK(stopped->shared().done_bytes == 2 * kMinBlockBytes);
  CHECK(board->shared().done_bytes == 0);
}

TEST_CASE("a process that was stopped is found out, and goes on with the rest when it continues") {
  Node node(40);
  const auto board = node.join();
  node.settle_some(*board, milliseconds(10));
  int settled[2];
  REQUIRE(::pipe(settled) == 0);
  const pid_t child = child_that_waits([&] {
    static auto own = join(node.folder, node.plan);
    static std::vector<Claim> claims;
    for (int i = 0; i < 2; ++i) own->take(kNoLimit);  // what was done before it came
    for (int i = 0; i < 8; ++i) claims.push_back(own->take(kNoLimit).value());
    static const int done = settled[1];
    ::signal(SIGCONT, [](int) {
      for (const Claim& claim : claims) own->settle(claim, Outcome::done, 0);
      const auto next = own->take(kNoLimit);
      const std::uint32_t block = next ? next->block : ~0U;
      own->settle(next.value(), Outcome::done, 0);
      if (::write(done, &block, sizeof block) < 0) ::_exit(1);
    });
  });
  ::kill(child, SIGSTOP);
  int status = 0;
  REQUIRE(::waitpid(child, &status, WUNTRACED) == child);
  REQUIRE(WIFSTOPPED(status));
  CHECK(board->take(kNoLimit).value().block == 10);
  node.look(*board, milliseconds(1200));
  for (std::uint32_t block = 2; block < 10; ++block) {
    const auto claim = board->take(kNoLimit);
    REQUIRE(claim);
    CHECK(claim->block == block);
    if (block < 6) board->settle(*claim, Outcome::done, 0);
  }
  ::kill(child, SIGCONT);
  std::uint32_t next = 0;
  REQUIRE(::read(settled[0], &next, sizeof next) == sizeof next);
  CHECK(next == 11);
  // What this one still has is its own to settle.
  for (std::uint32_t block = 6; block < 10; ++block)
    CHECK(board->standing({block, block + 1})->claimed);
  kill_and_wait(child);
  ::close(settled[0]);
  ::close(settled[1]);
}

TEST_CASE("while blocks take longer than the stall, the living keep theirs") {
  Node node(4);
  const auto board = node.join();
  const auto slow = node.join();
  node.settle_some(*board, seconds(20));
  CHECK(slow->take(kNoLimit));
  CHECK(board->take(kNoLimit));
  board->recover(false);
  slow->recover(false);
  board->recover(true);
  CHECK_FALSE(board->take(kNoLimit));
  node.clock.pass(seconds(61));
  slow->recover(false);
  board->recover(true);
  CHECK(board->take(kNoLimit));
}

TEST_CASE("since when someone has a block is told as far as it was looked at") {
  Node node(4);
  const auto board = node.join();
  const auto other = node.join();
  CHECK(other->take(kNoLimit));
  CHECK_FALSE(board->standing({0, 4})->held_since);
  board->recover(false);
  const auto seen = node.clock.now();
  node.clock.pass(seconds(5));
  other->recover(false);
  board->recover(false);
  CHECK(board->standing({0, 4})->held_since == seen);
  CHECK_FALSE(board->standing({1, 4})->held_since);
}

TEST_CASE("another watches the throughput when the one who did shows no life") {
  Node node(200);
  const auto stopped = node.join();
  const auto board = node.join();
  const auto climb = [&](BoardClaims& one) {
    for (int i = 0; i < 2; ++i) {  // from where it begins to where it tries less

      const auto claim = one.take(kNoLimit);
      REQUIRE(claim);
      node.clock.pass(milliseconds(100));
      one.settle(*claim, Outcome::done, 400 * kMiB);
    }
  };
  climb(*stopped);
  CHECK(stopped->take(kNoLimit));
  const auto before = board->inflight_bytes();
  climb(*board);
  CHECK(board->inflight_bytes() == before);
  node.look(*board, milliseconds(1200));
  climb(*board);
  CHECK(board->inflight_bytes() != before);
}

TEST_CASE("what the one who watches finds to limit is told to all, and outlives it") {
  constexpr std::uint64_t kBlockBytes = 16 * kMiB;
  Node node(std::make_shared<const Plan>(
      std::vector<PlannedFile>{{100 * kBlockBytes, {}}},
      PlanOptions{.block_bytes = kBlockBytes, .head_block_bytes = kBlockBytes}));
  auto watcher = node.join();
  const auto other = node.join();
  std::vector<Claim> claims;
  for (int i = 0; i < 4; ++i) claims.push_back(watcher->take(kNoLimit).value());
  CHECK(other->limit() == Limit::unknown);
  for (int i = 0; i < 3; ++i) {
    node.clock.pass(milliseconds(100));
    watcher->settle(claims.front(), Outcome::done, 400 * kMiB);
    claims.erase(claims.begin());
    while (const auto claim = watcher->take(kNoLimit)) claims.push_back(*claim);
  }
  CHECK(watcher->limit() == Limit::storage);
  CHECK(other->limit() == Limit::storage);
  for (const Claim& claim : claims) watcher->settle(claim, Outcome::released, 0);
  watcher.reset();
  for (int i = 0; i < 2; ++i) {
    std::optional<Claim> claim = other->take(kNoLimit);
    while (claim && claim->done_before) claim = other->take(kNoLimit);
    REQUIRE(claim);
    node.clock.pass(milliseconds(100));
    other->settle(*claim, Outcome::done, 400 * kMiB);
  }
  CHECK(node.join()->limit() == Limit::storage);
  const auto setter = node.join({3 * kMinBlockBytes});
  CHECK(other->limit() == Limit::inflight_bytes);
}

TEST_CASE("threads limit a node whose claims leave more to be had") {
  Node node(200);
  const auto board = node.join();
  for (int i = 0; i < 3; ++i) {
    const auto claim = board->take(kNoLimit);
    REQUIRE(claim);
    node.clock.pass(milliseconds(100));
    board->settle(*claim, Outcome::done, 400 * kMiB);
  }
  CHECK(board->limit() == Limit::threads);
}

TEST_CASE("what one participant sets may be in flight, whoever climbs") {
  Node node(200);
  const auto climber = node.join();
  const auto setter = node.join({3 * kMinBlockBytes});
  for (int i = 0; i < 20; ++i) {
    const auto claim = climber->take(kNoLimit);
    REQUIRE(claim);
    node.clock.pass(milliseconds(100));
    climber->settle(*claim, Outcome::done, 400 * kMiB);
    CHECK(climber->inflight_bytes() == 3 * kMinBlockBytes);
  }
  CHECK(taken_by(*climber).size() == 3);
  CHECK(node.join()->inflight_bytes() == 3 * kMinBlockBytes);
}

TEST_CASE("of several values that are set the least counts, in whatever order they come") {
  for (const bool least_first : {true, false}) {
    Node node(4);
    const auto one = node.join({least_first ? 10 * kMiB : 20 * kMiB});
    const auto other = node.join({least_first ? 20 * kMiB : 10 * kMiB});
    CHECK(one->inflight_bytes() == 10 * kMiB);
    CHECK(other->inflight_bytes() == 10 * kMiB);
  }
}

TEST_CASE("what may be wrong is taken a little at a time, until some of it has come in") {
  constexpr std::uint64_t kBlockBytes = 4 * kMiB;
  Node node(std::make_shared<const Plan>(
      std::vector<PlannedFile>{{60 * kBlockBytes, {}}},
      PlanOptions{.block_bytes = kBlockBytes, .head_block_bytes = kBlockBytes}));
  const auto earlier = node.join();
  earlier->settle(earlier->take(kNoLimit).value(), Outcome::done, 200 * kMiB);  // before it came
  const auto doubting = node.join({.doubted = true});
  REQUIRE(doubting->take(kNoLimit)->done_before);
  for (std::uint64_t read_bytes = 0; read_bytes < kDoubtedBytes;
       read_bytes += kDoubtedInflightBytes) {
    const auto taken = taken_by(*doubting);
    CHECK(taken.size() == kDoubtedInflightBytes / kBlockBytes);
    for (const std::uint32_t block : taken) {
      doubting->settle({.block = block}, Outcome::done, kBlockBytes);
    }
  }
  CHECK(taken_by(*doubting).size() == doubting->inflight_bytes() / kBlockBytes);
}

TEST_CASE("that one was misled is known to the others that were there") {
  Node node(4);
  const auto one = node.join();
  const auto other = node.join();
  CHECK_FALSE(other->told_misled());
  const std::uint32_t seen = doorbell_seen(other->doorbell());
  one->tell_misled();
  CHECK(doorbell_seen(other->doorbell()) != seen);
  CHECK(other->told_misled());
  CHECK_FALSE(node.join()->told_misled());
}

TEST_SUITE_END();
