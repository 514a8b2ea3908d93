// board_file: what becomes of the file when processes fork, leave or die, and what makes a file
// unfit to be a board.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "board/board_memory.h"
#include "board_fixture.h"
#include "fork_support.h"

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
  SUBCASE("a folder") {
    REQUIRE(::mkdir(path.c_str(), 0700) == 0);
    CHECK(refusal_of(folder, plan).find("Is a directory") != std::string::npos);
  }
  SUBCASE("a symlink in a circle") {
    REQUIRE(::symlink(path.c_str(), path.c_str()) == 0);
    CHECK(refusal_of(folder, plan).find("open") != std::string::npos);
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

TEST_CASE("another user can neither open a board, nor plant one that is swept or waited for") {
  if (::geteuid() != 0) {
    MESSAGE("skipped: needs root, to become another user");
    return;
  }
  const TemporaryFolder folder;
  REQUIRE(::chmod(folder.path("").c_str(), 01777) == 0);  // as /dev/shm
  const auto plan = plan_of(2);
  const auto board = join(folder, plan);
  const std::string planted = folder.path("shardahead-planted");
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::alarm(static_cast<unsigned>(kHangBound.count()));
    if (::setgid(12345) != 0 || ::setuid(12345) != 0) ::_exit(10);
    const std::string path = folder.path(kName);
    if (::open(path.c_str(), O_RDONLY | O_CLOEXEC) >= 0 || errno != EACCES) ::_exit(11);
    if (::open(path.c_str(), O_RDWR | O_CLOEXEC) >= 0 || errno != EACCES) ::_exit(12);
    if (::truncate(path.c_str(), 0) == 0 || ::unlink(path.c_str()) == 0) ::_exit(13);
    if (::rename(path.c_str(), planted.c_str()) == 0) ::_exit(14);
    const int held = ::open(planted.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    struct flock lock{};
    lock.l_type = F_WRLCK;
    ::_exit(held >= 0 && ::fcntl(held, F_OFD_SETLK, &lock) == 0 ? 0 : 15);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 0);
  BoardFile::sweep(folder.path(""), "shardahead-");
  CHECK(::access(planted.c_str(), F_OK) == 0);
  BoardRefusal refusal;
  CHECK_FALSE(BoardFile::join(folder.path(""), "shardahead-planted", 4096, refusal));
  CHECK(board->take(kNoLimit));
}

TEST_CASE("what cannot be a board is left alone by the sweep, and does not hold it up") {
  const TemporaryFolder folder;
  const std::string fifo = folder.path("shardahead-fifo");
  const std::string link = folder.path("shardahead-link");
  const std::string target = folder.write("target", 100);
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  REQUIRE(::mkdir(folder.path("shardahead-folder").c_str(), 0700) == 0);
  REQUIRE(::symlink(target.c_str(), link.c_str()) == 0);
  BoardFile::sweep(folder.path(""), "shardahead-");
  BoardFile::sweep("/no/such/folder", "shardahead-");
  for (const std::string& path : {fifo, link, folder.path("shardahead-folder"), target}) {
    struct stat found{};
    CHECK(::lstat(path.c_str(), &found) == 0);
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

namespace {

// A participant that only keeps the file there, and its view of the memory.
struct Bystander {
  Bystander(const TemporaryFolder& folder, std::size_t blocks)
      : shape(*plan_of(blocks)),
        file(BoardFile::join(folder.path(""), kName, shape.size_bytes(), refusal)),
        memory(file.value().memory(), shape) {
    memory.begin();
  }
  BoardShape shape;
  BoardRefusal refusal;
  std::optional<BoardFile> file;
  BoardMemory memory;
};

void bring_to_the_end(BoardClaims& board, std::uint32_t blocks) {
  board.recover(false);
  for (std::uint32_t block = 0; block < blocks; ++block) {
    const auto claim = board.take(kNoLimit);
    REQUIRE(claim);
    CHECK(claim->block == block);
    board.settle(*claim, Outcome::done, 0);
  }
  CHECK(board.settled(kNoLimit));
}

}  // namespace

TEST_CASE("states without a meaning count as free, at the start and later") {
  const TemporaryFolder folder;
  Bystander bystander(folder, 5);
  const auto write_states = [&] {
    bystander.memory.states[0] = 3;
    bystander.memory.states[1] = kClaimed - 1;
    bystander.memory.states[2] = kClaimed + kBoardSlots;
    bystander.memory.states[3] = 0xffff;
    bystander.memory.states[4] = claimed_by(1);  // the slot of the next to come, who did not
  };
  SUBCASE("at the start") {
    write_states();
    const auto board = join(folder, plan_of(5));
    bring_to_the_end(*board, 5);
  }
  SUBCASE("later") {
    const auto board = join(folder, plan_of(5));
    write_states();
    bring_to_the_end(*board, 5);
  }
}

TEST_CASE("a header that is overwritten while it is in use stops no one") {
  const TemporaryFolder folder;
  Bystander bystander(folder, 4);
  const auto board = join(folder, plan_of(4));
  BoardHeader& header = *bystander.memory.header;
  SUBCASE("with zeros") {
    header.block_count = 0;
    header.inflight_bytes = 0;
    header.consumer_slots = 0;
    header.watcher = 0;
  }
  SUBCASE("with ones") {
    header.block_count = ~std::uint32_t{0};
    header.inflight_bytes = ~std::uint64_t{0};
    header.read_bytes = ~std::uint64_t{0};
    header.consumer_slots = ~std::uint32_t{0};
    header.watcher = ~std::uint32_t{0};
    header.dropped_bytes = ~std::uint64_t{0};
    header.limit = ~std::uint32_t{0};
    for (ConsumerSlot& slot : header.consumers) slot.active = 1;
    header.consumers[bystander.file->slot()].active = 0;  // the one that lives
  }
  bring_to_the_end(*board, 4);
  board->report_consumer({1, 2, 3});
  CHECK(board->slowest_consumer(std::chrono::steady_clock::now()));
  CHECK(board->end_consumer());
  CHECK(board->standing({0, 4}) == Standing{});
  CHECK(header.watcher <= kBoardSlots);
  CHECK(board->limit() == Limit::unknown);
  CHECK(refusal_of(folder, plan_of(4)).find(header.block_count == 4 ? "" : "not a board") !=
        std::string::npos);
}

TEST_CASE("a board takes the number of no standard stream that is closed") {
  const TemporaryFolder folder;
  CHECK(exit_status_of_child([&] {
          for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::close(stream);
          const auto board = join(folder, plan_of(2));
          for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
            if (::write(stream, "x", 1) >= 0) return 1;
          }
          return board->take(kNoLimit) ? 0 : 2;
        }) == 0);
}

TEST_SUITE_END();
