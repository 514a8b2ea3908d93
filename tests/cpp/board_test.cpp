// board: who takes which block, among participants of one process and among real processes that
// die; and what makes a file unfit to be a board.
#include "board.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("board");

namespace {

constexpr std::uint64_t kNoLimit = std::numeric_limits<std::uint64_t>::max();
constexpr const char* kName = "shardahead-test";

std::shared_ptr<const Plan> plan_of(std::size_t blocks) {
  PlanOptions options;
  options.block_bytes = options.head_block_bytes = kMinBlockBytes;
  return std::make_shared<const Plan>(std::vector<PlannedFile>{{blocks * kMinBlockBytes, {}}},
                                      options);
}

std::shared_ptr<const Plan> plan_of_spans(std::size_t blocks, std::vector<ByteRange> spans) {
  PlanOptions options;
  options.block_bytes = options.head_block_bytes = kMinBlockBytes;
  return std::make_shared<const Plan>(
      std::vector<PlannedFile>{{blocks * kMinBlockBytes, std::move(spans)}}, options);
}

std::unique_ptr<BoardClaims> join(const TemporaryFolder& folder,
                                  const std::shared_ptr<const Plan>& plan) {
  BoardRefusal refusal;
  auto board = BoardClaims::join(folder.path(""), kName, plan,
                                 share_of(*plan, Partition::block, 0, 1), refusal);
  INFO(refusal.reason);
  REQUIRE(board);
  return board;
}

std::string refusal_of(const TemporaryFolder& folder, const std::shared_ptr<const Plan>& plan) {
  BoardRefusal refusal;
  const auto board = BoardClaims::join(folder.path(""), kName, plan, {}, refusal);
  CHECK_FALSE(board);
  return refusal.reason;
}

// Runs `body` in a child, which tells through the pipe when it is ready and then waits to die.
template <typename Body>
pid_t child_that_waits(Body body) {
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::alarm(static_cast<unsigned>(kHangBound.count()));
    body();
    const char byte = 'r';
    if (::write(ready[1], &byte, 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  ::close(ready[1]);
  char byte = 0;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  ::close(ready[0]);
  return child;
}

void kill_and_wait(pid_t child) {
  ::kill(child, SIGKILL);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
}

}  // namespace

TEST_CASE("participants take each block once, in ascending order") {
  const TemporaryFolder folder;
  const auto plan = plan_of(50);
  const auto a = join(folder, plan);
  const auto b = join(folder, plan);
  std::vector<std::uint32_t> taken;
  for (bool turn = false;; turn = !turn) {
    const auto claim = (turn ? a : b)->take(kNoLimit);
    if (!claim) break;
    CHECK(claim->whole);
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
                        refusal, 3 * kMinBlockBytes);
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

TEST_CASE("a block that several want in part is fetched whole, one that one wants is not") {
  const TemporaryFolder folder;
  const auto left = plan_of_spans(2, {{0, 100}, {kMinBlockBytes, 100}});
  const auto right = plan_of_spans(2, {{2000, 100}});
  const auto a = join(folder, left);
  const auto b = join(folder, right);
  const auto first = a->take(kNoLimit);
  const auto second = a->take(kNoLimit);
  CHECK(first.value().whole);
  CHECK_FALSE(second.value().whole);
  CHECK_FALSE(b->take(kNoLimit));  // it does not want the second, and the first is taken
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

TEST_CASE("where nothing moves, one claim of the living is taken over at a time") {
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
  CHECK_FALSE(board->take(kNoLimit));
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

TEST_CASE("a forked child does not keep the claims of its dead parent") {
  const TemporaryFolder folder;
  const auto plan = plan_of(2);
  const auto board = join(folder, plan);
  int grandchild_pipe[2];
  REQUIRE(::pipe(grandchild_pipe) == 0);
  const pid_t parent = child_that_waits([&] {
    static auto own = join(folder, plan);
    own->take(kNoLimit);
    if (::fork() == 0) {  // tells itself that it runs: only then has it let go of what it got
      const pid_t grandchild = ::getpid();
      if (::write(grandchild_pipe[1], &grandchild, sizeof grandchild) < 0) ::_exit(1);
      for (;;) ::pause();
    }
  });
  pid_t grandchild = 0;
  REQUIRE(::read(grandchild_pipe[0], &grandchild, sizeof grandchild) == sizeof grandchild);
  ::close(grandchild_pipe[0]);
  ::close(grandchild_pipe[1]);
  kill_and_wait(parent);
  board->recover(false);
  CHECK(board->take(kNoLimit).value().block == 0);
  ::kill(grandchild, SIGKILL);
}

TEST_CASE("the last one out removes the file; a board of the dead is reset, or swept") {
  const TemporaryFolder folder;
  const auto plan = plan_of(2);
  {
    const auto a = join(folder, plan);
    {
      const auto b = join(folder, plan);
    }
    CHECK(::access(folder.path(kName).c_str(), F_OK) == 0);
  }
  CHECK(::access(folder.path(kName).c_str(), F_OK) != 0);
  kill_and_wait(child_that_waits([&] {
    static auto own = join(folder, plan);
    own->settle(own->take(kNoLimit).value(), Outcome::done, 0);
  }));
  CHECK(::access(folder.path(kName).c_str(), F_OK) == 0);
  {
    const auto board = join(folder, plan);
    const auto claim = board->take(kNoLimit);
    CHECK(claim.value().block == 0);
    board->settle(*claim, Outcome::done, 0);
    CHECK(board->shared().done_bytes == 0);
    BoardFile::sweep(folder.path(""), "shardahead-");
    CHECK(::access(folder.path(kName).c_str(), F_OK) == 0);
  }
  kill_and_wait(child_that_waits([&] { static auto own = join(folder, plan); }));
  BoardFile::sweep(folder.path(""), "shardahead-");
  CHECK(::access(folder.path(kName).c_str(), F_OK) != 0);
}

TEST_CASE("a file that another could have planted, or can reach, is not used") {
  const TemporaryFolder folder;
  const auto plan = plan_of(2);
  const std::string path = folder.path(kName);
  SUBCASE("a symlink") {
    const std::string target = folder.write("target", 100);
    REQUIRE(::symlink(target.c_str(), path.c_str()) == 0);
    CHECK(refusal_of(folder, plan).find("open") != std::string::npos);
    struct stat found{};
    REQUIRE(::stat(target.c_str(), &found) == 0);
    CHECK(found.st_size == 100);
  }
  SUBCASE("a hard link") {
    const std::string target = folder.write("target", 100);
    REQUIRE(::chmod(target.c_str(), 0600) == 0);
    REQUIRE(::link(target.c_str(), path.c_str()) == 0);
    CHECK(refusal_of(folder, plan).find("other names") != std::string::npos);
  }
  SUBCASE("one that others may open") {
    folder.write(kName, 100);
    REQUIRE(::chmod(path.c_str(), 0666) == 0);
    CHECK(refusal_of(folder, plan).find("others may open it") != std::string::npos);
  }
  SUBCASE("a FIFO") {
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    CHECK(refusal_of(folder, plan).find("not a regular file") != std::string::npos);
  }
  SUBCASE("one of another user") {
    folder.write(kName, 100);
    if (::geteuid() != 0 || ::chown(path.c_str(), 12345, 12345) != 0) {
      MESSAGE("skipped: needs root");
      return;
    }
    CHECK(refusal_of(folder, plan).find("another user") != std::string::npos);
  }
  SUBCASE("a missing folder") {
    BoardRefusal refusal;
    CHECK_FALSE(BoardClaims::join("/no/such/folder", kName, plan, {}, refusal));
    CHECK(refusal.reason.find("No such file") != std::string::npos);
  }
}

TEST_CASE("contents that are no board of this plan are refused while others use them") {
  const TemporaryFolder folder;
  const auto plan = plan_of(2);
  const pid_t child = child_that_waits([&] {
    static auto own = join(folder, plan);
    std::fstream file(folder.path(kName), std::ios::in | std::ios::out | std::ios::binary);
    file.write("garbage!", 8);
  });
  CHECK(refusal_of(folder, plan).find("not a board") != std::string::npos);
  CHECK(refusal_of(folder, plan_of(3)).find("size") != std::string::npos);
  kill_and_wait(child);
  CHECK(join(folder, plan)->take(kNoLimit));
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
