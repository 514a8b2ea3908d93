// board_file: what a forked child has of the boards of its parent: no lock, and no memory.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "base/process_mark.h"
#include "board_fixture.h"
#include "fork_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("board_fork");

namespace {

constexpr std::size_t kBytes = 4096;

BoardFile joined(const TemporaryFolder& folder) {
  BoardRefusal refusal;
  auto file = BoardFile::join(folder.path(""), kName, kBytes, refusal);
  INFO(refusal.reason);
  REQUIRE(file);
  return std::move(*file);
}

// As the kernel says to one who has just opened the file.
bool is_locked(const std::string& path, off_t begin, off_t length) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(descriptor >= 0);
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_start = begin;
  lock.l_len = length;
  const int asked = ::fcntl(descriptor, F_OFD_GETLK, &lock);
  ::close(descriptor);
  REQUIRE(asked == 0);
  return lock.l_type != F_UNLCK;
}

// A child that lives until the pipe is closed. It gives 1 where a descriptor that was opened just
// before the fork, with nothing to do with boards, is not its own any more.
pid_t child_that_waits_for(const int (&end)[2]) {
  const int own = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(static_cast<unsigned>(kHangBound.count()));
    ::close(end[1]);
    char byte = 0;
    const bool ended = ::read(end[0], &byte, 1) == 0;
    ::_exit(ended && ::fcntl(own, F_GETFD) >= 0 ? 0 : 1);
  }
  ::close(own);
  return child;
}

}  // namespace

TEST_CASE("no child of a storm of forks holds a lock of what is joined, left and swept meanwhile") {
  const TemporaryFolder folder;
  const BoardFile bystander = joined(folder);  // keeps the file there, in slot 0
  std::atomic<bool> over{false};
  std::atomic<std::size_t> rounds{0};
  std::thread joiner([&] {
    for (; !over; ++rounds) {
      BoardRefusal refusal;
      const auto left_at_once = BoardFile::join(folder.path(""), kName, kBytes, refusal);
      BoardFile::sweep(folder.path(""), kName);
    }
  });
  int end[2];
  REQUIRE(::pipe(end) == 0);
  std::vector<pid_t> children(100);
  for (std::size_t i = 0; i < children.size(); ++i) {
    while (rounds < i) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::microseconds(37 * (i % 8)));  // into it, somewhere
    children[i] = child_that_waits_for(end);
  }
  over = true;
  joiner.join();
  CHECK_FALSE(is_locked(folder.path(kName), 0, 1));                // the gate
  CHECK(is_locked(folder.path(kName), 1, 1));                      // the bystander
  CHECK_FALSE(is_locked(folder.path(kName), 2, kBoardSlots - 1));  // those who came and went
  ::close(end[1]);
  ::close(end[0]);
  for (const pid_t child : children) CHECK(exit_status_of(child) == 0);
}

TEST_CASE("a process may have any number of boards open, and a child keeps none of them") {
  const TemporaryFolder folder;
  std::vector<BoardFile> files;
  for (int i = 0; i < 300; ++i) files.push_back(joined(folder));
  const int last = static_cast<int>(files.back().slot()) + 1;
  CHECK(last == 300);
  CHECK(exit_status_of_child([&] {
          files.clear();
          // By another open file description, as above: all slots are still the parent's.
          return is_locked(folder.path(kName), 1, 1) && is_locked(folder.path(kName), last, 1) ? 0
                                                                                               : 1;
        }) == 0);
  const pid_t child = ::fork();  // outlives what the parent holds
  if (child == 0) {
    ::alarm(static_cast<unsigned>(kHangBound.count()));
    for (;;) ::pause();
  }
  while (files.size() > 1) files.pop_back();
  CHECK(is_locked(folder.path(kName), 1, 1));
  CHECK_FALSE(is_locked(folder.path(kName), 2, kBoardSlots - 1));
  kill_and_wait(child);
}

TEST_CASE("a child that drops a board leaves alone what it has mapped at its place") {
  const TemporaryFolder folder;
  auto file = std::make_unique<BoardFile>(joined(folder));
  CHECK(exit_status_of_child([&] {
          // The hole that the mapping of the parent left, where the next mapping may fall into.
          void* own = ::mmap(file->memory(), kBytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
          if (own != file->memory()) return 1;
          *file->memory() = std::byte{7};
          volatile std::byte* const kept = file->memory();
          file.reset();
          return *kept == std::byte{7} ? 0 : 2;
        }) == 0);
  CHECK(is_locked(folder.path(kName), 1, 1));
}

TEST_CASE("a child, and a child of it, may drop a participant that has a consumer") {
  const TemporaryFolder folder;
  const auto plan = plan_of(2);
  auto board = join(folder, plan);
  board->take(kNoLimit);
  board->report_consumer({1, 2, 3});
  CHECK(exit_status_of_child([&] {
          const int of_child = exit_status_of_child([&] {
            board.reset();
            return 0;
          });
          board.reset();
          return of_child;
        }) == 0);
  CHECK(is_locked(folder.path(kName), 1, 1));
  CHECK(board->slowest_consumer(std::chrono::steady_clock::now()).value().needed_bytes == 2);
}

TEST_CASE("a child works on a board of its own beside that of its parent") {
  const TemporaryFolder folder;
  const auto plan = plan_of(2);
  const auto board = join(folder, plan);
  REQUIRE(board->take(kNoLimit).value().block == 0);
  CHECK(exit_status_of_child([&] {
          BoardRefusal refusal;
          const auto own = BoardClaims::join(folder.path(""), kName, plan,
                                             share_of(*plan, Partition::block, 0, 1), refusal);
          if (!own) return 1;
          own->recover(false);  // the parent lives
          return own->take(kNoLimit).value().block == 1 ? 0 : 2;
        }) == 0);
}

TEST_CASE("a child is told from its parent also where both have the same process id") {
  const ProcessMark mark;
  CHECK(mark.is_here());
  CHECK(exit_status_of_child([&] { return mark.is_here() ? 1 : 0; }) == 0);
  // The first process of a namespace of process ids has the id 1, as has that of the next one.
  const int status = exit_status_of_child([] {
    if (::unshare(CLONE_NEWPID) != 0) return 77;
    return exit_status_of_child([] {
      const ProcessMark first;
      if (::getpid() != 1 || ::unshare(CLONE_NEWPID) != 0) return 77;
      return exit_status_of_child([&] { return ::getpid() == 1 && !first.is_here() ? 0 : 1; });
    });
  });
  if (status == 77) {
    MESSAGE("skipped: no namespace of process ids can be made here");
    return;
  }
  CHECK(status == 0);
}

TEST_SUITE_END();
