// board: who takes which block, among participants of one process and among real processes that
// die.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <random>
#include <set>

#include "board/board_memory.h"
#include "board_fixture.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("board");

TEST_CASE("participants take each block once, in ascending order") {
  const TemporaryFolder folder;
  const auto plan = plan_of(50);
  const auto a = join(folder, plan);
  const auto b = join(folder, plan);
  std::vector<std::uint32_t> taken;
  for (bool turn = false;; turn = !turn) {
    const auto claim = (turn ? a : b)->take(kNoLimit);
    if (!claim) break;
    CHECK((turn ? a : b)->ranges(*claim) == std::vector{plan->blocks()[claim->block].range});
    taken.push_back(claim->block);
    CHECK_FALSE(a->settled(kNoLimit));
    (turn ? a : b)->settle(*claim, Outcome::done, 0);
  }
  REQUIRE(taken.size() == 50);
  for (std::uint32_t i = 0; i < 50; ++i) CHECK(taken[i] == i);
  CHECK(a->settled(kNoLimit));
  CHECK(b->settled(kNoLimit));
  CHECK(a->shared().done_bytes + b->shared().done_bytes == plan->total_bytes());
}

TEST_CASE("what the node has brought in counts for each from when it came") {
  const TemporaryFolder folder;
  const auto plan = plan_of(4);
  const auto a = join(folder, plan);
  a->settle(a->take(kNoLimit).value(), Outcome::done, 100);
  const auto b = join(folder, plan);
  a->settle(a->take(kNoLimit).value(), Outcome::done, 20);
  b->settle(b->take(kNoLimit).value(), Outcome::done, 3);
  CHECK(a->shared().node_read_bytes == 123);
  CHECK(b->shared().node_read_bytes == 23);
}

TEST_CASE("nothing is taken beyond the limit, and what is before it can be settled alone") {
  const TemporaryFolder folder;
  const auto board = join(folder, plan_of(10));
  const std::uint64_t limit = 2 * kMinBlockBytes;
  for (int i = 0; i < 2; ++i) board->settle(board->take(limit).value(), Outcome::done, 0);
  CHECK_FALSE(board->take(limit));
  CHECK(board->settled(limit));
  CHECK_FALSE(board->settled(limit + 1));
}

TEST_CASE("the node has no more in flight than it may, whoever took it") {
  const TemporaryFolder folder;
  const auto plan = plan_of(10);
  BoardRefusal refusal;
  const auto a =
      BoardClaims::join(folder.path(""), kName, plan, share_of(*plan, Partition::block, 0, 1),
                        refusal, {3 * kMinBlockBytes});
  REQUIRE(a);
  const auto b = join(folder, plan);
  CHECK(b->inflight_bytes() == 3 * kMinBlockBytes);
  const auto first = a->take(kNoLimit);
  CHECK(b->take(kNoLimit));
  CHECK(a->take(kNoLimit));
  CHECK_FALSE(a->take(kNoLimit));
  CHECK_FALSE(b->take(kNoLimit));
  a->settle(first.value(), Outcome::done, kMinBlockBytes);
  CHECK(b->take(kNoLimit).value().block == 3);
  CHECK_FALSE(a->take(kNoLimit));
}

TEST_CASE("what is released is taken again, what failed is not") {
  const TemporaryFolder folder;
  const auto plan = plan_of(2);
  const auto a = join(folder, plan);
  const auto b = join(folder, plan);
  a->settle(a->take(kNoLimit).value(), Outcome::failed, 0);
  const auto claim = a->take(kNoLimit);
  a->settle(claim.value(), Outcome::released, 0);
  const auto again = b->take(kNoLimit);
  REQUIRE(again);
  CHECK(again->block == 1);
  b->settle(*again, Outcome::done, 0);
  CHECK_FALSE(b->take(kNoLimit));
  CHECK(b->settled(kNoLimit));
  CHECK(b->shared().failed_bytes == kMinBlockBytes);
}

TEST_CASE("what was done before one came is asked again by that one, and by no one else") {
  const TemporaryFolder folder;
  const auto plan = plan_of(3);
  const auto early = join(folder, plan);
  early->settle(early->take(kNoLimit).value(), Outcome::done, 0);
  const auto late = join(folder, plan);
  const auto asked = late->take(kNoLimit);
  REQUIRE(asked);
  CHECK(asked->block == 0);
  late->settle(*asked, Outcome::done, 0);
  CHECK(late->take(kNoLimit)->block == 1);
  CHECK(early->take(kNoLimit)->block == 2);
}

TEST_CASE("a part that is wanted since another began with the block is fetched after that one") {
  const TemporaryFolder folder;
  const auto left = plan_of_spans(1, {{0, 100}});
  const auto right = plan_of_spans(1, {{2000, 100}});
  const auto a = join(folder, left);
  const auto begun = a->take(kNoLimit);
  REQUIRE(begun);
  CHECK(a->ranges(*begun) == std::vector{ByteRange{0, 100}});
  const auto b = join(folder, right);
  CHECK_FALSE(b->take(kNoLimit));
  a->settle(*begun, Outcome::done, 0);
  CHECK_FALSE(b->settled(kNoLimit));
  const auto asked = b->take(kNoLimit);
  REQUIRE(asked);
  CHECK(asked->done_before);
  CHECK(b->ranges(*asked) == std::vector{ByteRange{2000, 100}});
  CHECK(b->settled(kNoLimit));
}

TEST_CASE("blocks of a killed process are taken again by the living") {
  const TemporaryFolder folder;
  const auto plan = plan_of(5);
  const auto board = join(folder, plan);
  const pid_t child = child_that_waits([&] {
    static auto own = join(folder, plan);
    for (int i = 0; i < 3; ++i) own->take(kNoLimit);
  });
  CHECK(board->take(kNoLimit)->block == 3);
  board->recover(false);
  CHECK(board->take(kNoLimit)->block == 4);
  CHECK_FALSE(board->take(kNoLimit));  // the child lives, its claims are its own
  kill_and_wait(child);
  CHECK_FALSE(board->take(kNoLimit));
  board->recover(false);
  for (std::uint32_t i = 0; i < 3; ++i) CHECK(board->take(kNoLimit).value().block == i);
}

TEST_CASE("where nothing moves, all claims of the living are taken over at once") {
  const TemporaryFolder folder;
  const auto plan = plan_of(2);
  const auto stopped = join(folder, plan);
  const auto board = join(folder, plan);
  const auto first = stopped->take(kNoLimit);
  stopped->take(kNoLimit);
  board->recover(true);
  const auto taken_over = board->take(kNoLimit);
  REQUIRE(taken_over);
  CHECK(taken_over->block == 0);
  CHECK(board->take(kNoLimit).value().block == 1);
  board->settle(*taken_over, Outcome::done, 0);
  stopped->settle(*first, Outcome::failed, 0);  // too late: it is not its own any more
  CHECK(board->shared().failed_bytes == 0);
}

TEST_CASE("whoever gets the slot of a dead one does not inherit its claims") {
  const TemporaryFolder folder;
  const auto plan = plan_of(3);
  const pid_t witness = child_that_waits([&] { static auto own = join(folder, plan); });
  const pid_t child = child_that_waits([&] {
    static auto own = join(folder, plan);
    own->take(kNoLimit);
  });
  kill_and_wait(child);
  const auto board = join(folder, plan);
  CHECK(board->take(kNoLimit).value().block == 0);
  kill_and_wait(witness);
}

TEST_CASE("the slowest consumer of all is known to all, and only those who report are consumers") {
  const TemporaryFolder folder;
  const auto plan = plan_of(4);
  const auto a = join(folder, plan);
  const auto b = join(folder, plan);
  const auto warm = join(folder, plan);  // has no consumer
  const auto now = std::chrono::steady_clock::now();
  CHECK_FALSE(warm->slowest_consumer(now));
  a->report_consumer({300, 400, 50});
  CHECK(warm->slowest_consumer(now) == ConsumerPosition{300, 400, 50});
  b->report_consumer({200, 250, 100});
  for (const auto* board : {&a, &b, &warm}) {
    CHECK((*board)->slowest_consumer(now) == ConsumerPosition{200, 250, 50});
  }
  CHECK_FALSE(b->end_consumer());
  CHECK(warm->slowest_consumer(now) == ConsumerPosition{300, 400, 50});
  CHECK(a->end_consumer());
  CHECK_FALSE(warm->slowest_consumer(now));
}

TEST_CASE("a consumer that stands still is waited for by itself alone") {
  const TemporaryFolder folder;
  const auto plan = plan_of(4);
  const auto stopped = join(folder, plan);
  const auto moving = join(folder, plan);
  const auto now = std::chrono::steady_clock::now();
  stopped->report_consumer({100, 100, 100});
  moving->report_consumer({200, 200, 200});
  CHECK(moving->slowest_consumer(now)->consumed_bytes == 100);
  CHECK(stopped->slowest_consumer(now)->consumed_bytes == 100);
  const auto later = now + ConsumerWatch::kPatience;
  CHECK(moving->slowest_consumer(later)->consumed_bytes == 200);
  CHECK(stopped->slowest_consumer(later)->consumed_bytes == 100);
  stopped->report_consumer({101, 101, 101});
  CHECK(moving->slowest_consumer(later)->consumed_bytes == 101);
}

TEST_CASE("a killed consumer is found dead, and whoever gets its slot begins without one") {
  const TemporaryFolder folder;
  const auto plan = plan_of(4);
  const auto board = join(folder, plan);
  board->report_consumer({200, 200, 200});
  const auto consuming = [&] {
    static auto own = join(folder, plan);
    own->report_consumer({10, 10, 10});
  };
  const auto now = std::chrono::steady_clock::now();
  kill_and_wait(child_that_waits(consuming));
  CHECK(board->slowest_consumer(now)->consumed_bytes == 10);
  board->recover(false);
  CHECK(board->slowest_consumer(now)->consumed_bytes == 200);
  kill_and_wait(child_that_waits(consuming));
  CHECK(board->slowest_consumer(now)->consumed_bytes == 10);
  const auto next = join(folder, plan);
  CHECK(board->slowest_consumer(now)->consumed_bytes == 200);
  kill_and_wait(child_that_waits(consuming));
  next->report_consumer({300, 300, 300});
  CHECK_FALSE(next->end_consumer());  // ours is left, the killed one does not count
  CHECK(board->end_consumer());
}

TEST_CASE("each part is dropped by one participant, and again once a consumer begins anew") {
  const TemporaryFolder folder;
  const auto plan = plan_of(4);
  const auto a = join(folder, plan);
  const auto b = join(folder, plan);
  CHECK_FALSE(a->take_dropping(16 * kMiB - 1));
  CHECK(a->take_dropping(20 * kMiB) == ByteRange{0, 20 * kMiB});
  CHECK_FALSE(b->take_dropping(20 * kMiB));
  CHECK_FALSE(b->take_dropping(10 * kMiB));
  CHECK_FALSE(b->take_dropping(36 * kMiB - 1));
  CHECK(b->take_dropping(36 * kMiB) == ByteRange{20 * kMiB, 16 * kMiB});
  b->report_consumer({});
  CHECK(a->take_dropping(16 * kMiB) == ByteRange{0, 16 * kMiB});
}

TEST_CASE("a mount that keeps nothing is known to all") {
  const TemporaryFolder folder;
  const auto plan = plan_of(4);
  const auto a = join(folder, plan);
  const auto b = join(folder, plan);
  CHECK(b->told_keeping() == Keeping::unknown);
  a->tell_keeping(Keeping::uncached);
  CHECK(b->told_keeping() == Keeping::uncached);
  CHECK(join(folder, plan)->told_keeping() == Keeping::uncached);
}

TEST_CASE("who has opened all files is known to all, and stays so when its consumer ends") {
  const TemporaryFolder folder;
  const auto plan = plan_of(2);
  const auto a = join(folder, plan);
  const auto b = join(folder, plan);
  join(folder, plan)->report_consumer({});  // has left again
  for (BoardClaims* board : {a.get(), b.get()}) board->report_consumer({});
  const auto is = [&](std::uint32_t opened, std::uint32_t opening) {
    const auto found = b->meeting();
    return found && found->opened == opened && found->opening == opening;
  };
  CHECK(is(0, 2));
  const std::uint32_t seen = doorbell_seen(b->doorbell());
  a->tell_opened();
  CHECK(doorbell_seen(b->doorbell()) != seen);
  CHECK(is(1, 1));
  a->end_consumer();
  CHECK(is(1, 1));
}

TEST_CASE("who gets the slot of a dead one has opened nothing") {
  const TemporaryFolder folder;
  const auto plan = plan_of(2);
  const auto survivor = join(folder, plan);
  const pid_t child = child_that_waits([&] {
    static auto own = join(folder, plan);
    own->report_consumer({});
    own->tell_opened();
  });
  CHECK(survivor->meeting()->opened == 1);
  kill_and_wait(child);
  const auto next = join(folder, plan);
  next->report_consumer({});
  CHECK(survivor->meeting()->opened == 0);
  CHECK(survivor->meeting()->opening == 1);
}

TEST_CASE("who comes while the first one still sweeps the folder is let in") {
  const TemporaryFolder folder;
  const auto plan = plan_of(4);
  BoardRefusal refusal;
  const BoardShape shape(*plan);
  const auto first =
      BoardFile::join(folder.path(""), kName, shape.size_bytes(), refusal,
                      [&](std::byte* memory) { BoardMemory(memory, shape).begin(); });
  REQUIRE(first);
  REQUIRE(first->first());
  join(folder, plan);
}

TEST_CASE("64 processes that join, leave and are killed neither lose nor repeat a block") {
  constexpr std::size_t kBlocks = 400;
  constexpr int kProcesses = 64;
  const TemporaryFolder folder;
  const auto plan = plan_of(kBlocks);
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  const std::string log_path = folder.write("log", 0);
  const auto keeper = join(folder, plan);  // the board outlives them all
  std::map<pid_t, bool> children;
  for (int i = 0; i < kProcesses; ++i) {
    const bool dies = random() % 3 == 0;
    const auto turns = random() % 12;
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::alarm(static_cast<unsigned>(kHangBound.count()));
      BoardRefusal refusal;
      auto board = BoardClaims::join(folder.path(""), kName, plan,
                                     share_of(*plan, Partition::block, 0, 1), refusal);
      if (!board) ::_exit(2);
      const int log = ::open(log_path.c_str(), O_WRONLY | O_APPEND);
      for (std::size_t turn = 0; turn < turns || !dies; ++turn) {
        const auto claim = board->take(kNoLimit);
        if (!claim && board->settled(kNoLimit)) break;
        if (!claim) {
          wait_for_ring(board->doorbell(), doorbell_seen(board->doorbell()),
                        std::chrono::milliseconds(5));
          board->recover(false);
          continue;
        }
        if (dies && turn + 1 == turns) ::raise(SIGKILL);
        if (claim->done_before) continue;
        if (::write(log, &claim->block, sizeof claim->block) != sizeof claim->block) ::_exit(3);
        board->settle(*claim, Outcome::done, 0);
        if (!dies && turn > turns) ::_exit(0);  // leaves early, by exit: no destructor runs
      }
      board.reset();
      ::_exit(0);
    }
    children[child] = dies;
  }
  for (const auto& [child, dies] : children) {
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    if (!dies) CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
  }
  keeper->recover(false);
  std::multiset<std::uint32_t> fetched;
  std::ifstream log(log_path, std::ios::binary);
  for (std::uint32_t block = 0; log.read(reinterpret_cast<char*>(&block), sizeof block);) {
    fetched.insert(block);
  }
  while (const auto claim = keeper->take(kNoLimit)) {
    if (!claim->done_before) fetched.insert(claim->block);
    keeper->settle(*claim, Outcome::done, 0);
  }
  CHECK(keeper->settled(kNoLimit));
  for (std::uint32_t block = 0; block < kBlocks; ++block) CHECK(fetched.count(block) == 1);
}

TEST_SUITE_END();
