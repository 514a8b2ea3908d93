// locked_file: pages that stay where they are as long as they are locked, and the limit of that.
#include "node/locked_file.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "node/residency.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("locked_file");

namespace {

constexpr std::uint64_t kBytes = 64 * kKiB + 5;

}  // namespace

TEST_CASE("what is locked cannot be dropped, and what was locked can be") {
  const TemporaryFolder folder;
  const auto file = File::open(system_file_io(), folder.write("0.shard", kBytes));
  const ByteRange whole = {0, kBytes};
  REQUIRE(evict(system_file_io(), *file, whole) == 0);
  if (residency(system_file_io(), *file, whole).resident_bytes != std::uint64_t{0}) {
    MESSAGE("skipped: files of this folder cannot be dropped");
    return;
  }
  {
    LockedFile locked(*file);
    CHECK(locked.size_bytes() == kBytes);
    locked.lock({0, 8 * kKiB});
    locked.lock({8 * kKiB, 2 * kBytes});
    locked.lock({kBytes, 1});  // nothing
    CHECK(evict(system_file_io(), *file, whole) == 0);
    CHECK(residency(system_file_io(), *file, whole).resident_bytes == kBytes);
  }
  CHECK(evict(system_file_io(), *file, whole) == 0);
  CHECK(residency(system_file_io(), *file, whole).resident_bytes == std::uint64_t{0});
}

TEST_CASE("an empty file has nothing to lock") {
  const TemporaryFolder folder;
  LockedFile locked(*File::open(system_file_io(), folder.write("0.shard", 0)));
  locked.lock({0, 1});
  CHECK(locked.size_bytes() == 0);
}

TEST_CASE("beyond the limit of this process that is an error with the file, unless it may") {
  const TemporaryFolder folder;
  const auto file = File::open(system_file_io(), folder.write("0.shard", kBytes));
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_MEMLOCK, &before) == 0);
  rlimit one_page = before;
  one_page.rlim_cur = page_bytes();
  REQUIRE(::setrlimit(RLIMIT_MEMLOCK, &one_page) == 0);
  const bool beyond = locks_beyond_limit();
  rlimit kept{};
  CHECK(::getrlimit(RLIMIT_MEMLOCK, &kept) == 0);
  CHECK(kept.rlim_cur == page_bytes());
  LockedFile locked(*file);
  int errno_value = 0;
  std::string path;
  try {
    locked.lock({0, kBytes});
  } catch (const IoException& exception) {
    errno_value = exception.error().errno_value;
    path = exception.error().path;
  }
  CHECK(::setrlimit(RLIMIT_MEMLOCK, &before) == 0);
  CHECK(errno_value == (beyond ? 0 : ENOMEM));
  CHECK(path == (beyond ? "" : folder.path("0.shard")));
}

TEST_SUITE_END();
