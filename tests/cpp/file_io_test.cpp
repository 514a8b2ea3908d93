// file_io: the real seam, with system calls that the linker lets these tests interrupt, and
// pread_full over a faulty one.
#include "node/file_io.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdarg>
#include <limits>
#include <optional>

#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

namespace {
// How many of the next calls of this thread end with EINTR.
thread_local int interruptions = 0;

bool interrupted() {
  if (interruptions == 0) return false;
  --interruptions;
  errno = EINTR;
  return true;
}
}  // namespace

extern "C" {
int __real_open(const char* path, int flags, ...);
ssize_t __real_pread(int descriptor, void* buffer, size_t count, off_t offset);
int __real_fdatasync(int descriptor);

int __wrap_open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const auto mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : mode_t{0};
  va_end(rest);
  return interrupted() ? -1 : __real_open(path, flags, mode);
}

ssize_t __wrap_pread(int descriptor, void* buffer, size_t count, off_t offset) {
  return interrupted() ? -1 : __real_pread(descriptor, buffer, count, offset);
}

int __wrap_fdatasync(int descriptor) { return interrupted() ? -1 : __real_fdatasync(descriptor); }
}

TEST_SUITE_BEGIN("file_io");

TEST_CASE("interrupted calls are made again") {
  const TemporaryFolder folder;
  const std::string path = folder.write("a", 10000);
  FileIo& io = system_file_io();
  interruptions = 3;
  const int descriptor = io.open(path);
  REQUIRE(descriptor >= 0);
  CHECK(interruptions == 0);
  std::vector<std::byte> buffer(10000);
  interruptions = 3;
  CHECK(io.pread(descriptor, buffer.data(), {0, 10000}) == 10000);
  CHECK(interruptions == 0);
  interruptions = 3;
  CHECK(io.fdatasync(descriptor) == 0);
  CHECK(interruptions == 0);
  CHECK(io.close(descriptor) == 0);
}

TEST_CASE("populating brings in the page, and is an error, not a signal, where there is none") {
  const TemporaryFolder folder;
  FileIo& io = system_file_io();
  const int descriptor = io.open(folder.write("a", 4 * kMiB));
  REQUIRE(descriptor >= 0);
  CHECK(io.fault_in_huge_pages(descriptor, {2 * kMiB, 2 * kMiB}) == 0);
  CHECK(io.mincore(descriptor, {2 * kMiB, page_bytes()}) == 1);
  CHECK(io.fault_in_huge_pages(descriptor, {8 * kMiB, 2 * kMiB}) == -EFAULT);
  CHECK(io.close(descriptor) == 0);
}

TEST_CASE("results are -errno") {
  FileIo& io = system_file_io();
  FileStatus status;
  std::byte byte{};
  CHECK(io.open("/no/such/file") == -ENOENT);
  CHECK(io.status("/no/such/file", status) == -ENOENT);
  CHECK(io.status(-1, status) == -EBADF);
  CHECK(io.pread(-1, &byte, {0, 1}) == -EBADF);
  CHECK(io.fadvise_willneed(-1, {0, 1}) == -EBADF);
  CHECK(io.fadvise_dontneed(-1, {0, 1}) == -EBADF);
  CHECK(io.readahead(-1, {0, 1}) == -EBADF);
  CHECK(io.fault_in_huge_pages(-1, {0, 4096}) == -EBADF);
  CHECK(io.fdatasync(-1) == -EBADF);
  CHECK(io.mincore(-1, {0, 1}) == -EBADF);
  CHECK(io.close(-1) == -EBADF);
}

TEST_CASE("status tells size, kind, and whether the kernel tells more") {
  const TemporaryFolder folder;
  FileIo& io = system_file_io();
  for (const std::uint64_t size_bytes : {std::uint64_t{0}, std::uint64_t{12345}, kMiB}) {
    FileStatus status;
    const std::string path = folder.write("a" + std::to_string(size_bytes), size_bytes);
    REQUIRE(io.status(path, status) == 0);
    CHECK(status.size_bytes == size_bytes);
    CHECK(S_ISREG(status.mode));
    const int descriptor = io.open(path);
    CHECK((::fcntl(descriptor, F_GETFL) & O_NONBLOCK) == 0);  // as a plain open() leaves it
    CHECK(io.status(descriptor, status) == 0);
    CHECK(status.owned_or_writable);
    CHECK(io.close(descriptor) == 0);
  }
}

TEST_CASE("times before 1677 and after 2262 are the nearest that 64 bits can say") {
  const TemporaryFolder folder;
  const std::string path = folder.write("a", 1);
  const auto modified = [&](timespec time) -> std::optional<std::int64_t> {
    const std::array<timespec, 2> times{timespec{0, UTIME_OMIT}, time};
    struct stat found{};
    REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times.data(), 0) == 0);
    REQUIRE(::stat(path.c_str(), &found) == 0);
    // Not every filesystem can say it.
    if (found.st_mtim.tv_sec != time.tv_sec || found.st_mtim.tv_nsec != time.tv_nsec) return {};
    FileStatus status;
    REQUIRE(system_file_io().status(path, status) == 0);
    return status.modified_nanoseconds;
  };
  constexpr auto kMost = std::numeric_limits<std::int64_t>::max();
  constexpr auto kLeast = std::numeric_limits<std::int64_t>::min();
  CHECK(modified({1, 5}) == 1'000'000'005);
  CHECK(modified({-2, 5}).value_or(-1'999'999'995) == -1'999'999'995);
  CHECK(modified({9'223'372'036, 854'775'806}).value_or(kMost - 1) == kMost - 1);
  CHECK(modified({9'223'372'036, 854'775'808}).value_or(kMost) == kMost);
  CHECK(modified({12'000'000'000, 1}).value_or(kMost) == kMost);
  CHECK(modified({-12'000'000'000, 1}).value_or(kLeast) == kLeast);
}

TEST_CASE("opening a FIFO does not wait for a writer") {
  const TemporaryFolder folder;
  const std::string path = folder.path("fifo");
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  const int descriptor = system_file_io().open(path);
  CHECK(descriptor >= 0);
  CHECK(system_file_io().close(descriptor) == 0);
}

TEST_CASE("an empty range has no resident pages, though the kernel takes 0 as to the end") {
  const TemporaryFolder folder;
  const int descriptor = system_file_io().open(folder.write("a", 100000));
  REQUIRE(descriptor >= 0);
  CHECK(system_file_io().cachestat(descriptor, {0, 0}) == 0);
  CHECK(system_file_io().mincore(descriptor, {0, 0}) == 0);
  CHECK(system_file_io().close(descriptor) == 0);
}

TEST_CASE("pread_full reads through short reads and stops at the end of the file") {
  SimulatedCheckpoint checkpoint({10000});
  const std::string path = SimulatedCheckpoint::path(0);
  checkpoint.io.add({.kind = FaultKind::short_read, .limit_bytes = 17});
  const int descriptor = checkpoint.io.open(path);
  std::vector<std::byte> buffer(10000);
  std::uint64_t done = 0;
  CHECK(pread_full(checkpoint.io, descriptor, buffer.data(), {100, 9000}, done) == 0);
  CHECK(done == 9000);
  CHECK(checkpoint.io.calls(Operation::pread) == 530);  // 9000 / 17, rounded up
  bool same = true;
  for (std::uint64_t at = 0; at < 9000; ++at) {
    same = same && buffer[at] == SimulatedFileIo::content(path, 100 + at);
  }
  CHECK(same);
  CHECK(pread_full(checkpoint.io, descriptor, buffer.data(), {9000, 5000}, done) == 0);
  CHECK(done == 1000);
  checkpoint.io.clear_faults();
  checkpoint.io.add({.kind = FaultKind::short_read, .to_offset = 5000, .limit_bytes = 1000});
  checkpoint.io.add({.from_offset = 5000});
  CHECK(pread_full(checkpoint.io, descriptor, buffer.data(), {0, 10000}, done) == -EIO);
  CHECK(done == 5000);
  checkpoint.io.close(descriptor);
}

TEST_SUITE_END();
