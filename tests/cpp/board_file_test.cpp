// board_file: what becomes of the file when processes fork, leave or die, and what makes a file
// unfit to be a board.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "board_fixture.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("board_file");

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

TEST_SUITE_END();
