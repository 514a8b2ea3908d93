// keeping: mounts that keep pages, that lose them with every open, that never had any.
#include "node/keeping.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("keeping");

namespace {

struct OneFile {
  explicit OneFile(SimulatedKernel kernel = {}, std::uint64_t size_bytes = 4 * kMiB)
      : checkpoint({size_bytes}, kernel) {
    checkpoint.open();
    file = checkpoint.files->acquire(0);
  }

  KeepingCheck check(const std::vector<ByteRange>& ranges = {{0, 4 * kMiB}}) const {
    return check_keeping(checkpoint.io, *file, ranges);
  }

  SimulatedCheckpoint checkpoint;
  std::shared_ptr<const File> file;
};

constexpr SimulatedKernel kLonePages = {.read_window_bytes = 4096};

}  // namespace

TEST_CASE("a mount that keeps pages: one page and one open tell") {
  const OneFile load(kLonePages);
  const std::uint64_t opens = load.checkpoint.io.calls(Operation::open);
  const KeepingCheck found = load.check();
  CHECK(found.keeping == Keeping::keeps);
  CHECK(found.read_bytes == page_bytes());
  CHECK(load.checkpoint.kernel.served_bytes() == page_bytes());
  CHECK(load.checkpoint.io.calls(Operation::open) == opens + 1);
  CHECK(load.checkpoint.kernel.open_descriptors() == 1);
}

TEST_CASE("each open empties the page cache") {
  const OneFile load({.read_window_bytes = 4096, .open_empties = true});
  CHECK(load.check().keeping == Keeping::emptied_by_open);
  CHECK(load.checkpoint.kernel.served_bytes() <= 2 * page_bytes());
}

TEST_CASE("what others have found meanwhile is the answer, and their pages stay") {
  const OneFile load({.read_window_bytes = 4096, .open_empties = true});
  const std::uint64_t opens = load.checkpoint.io.calls(Operation::open);
  const auto told = [] { return Keeping::uncached; };
  CHECK(check_keeping(load.checkpoint.io, *load.file, {{0, 4 * kMiB}}, told).keeping ==
        Keeping::uncached);
  CHECK(load.checkpoint.io.calls(Operation::open) == opens);
}

TEST_CASE("also where all was resident, and lost by the look at it") {
  const OneFile load({.open_empties = true});
  load.checkpoint.kernel.make_resident("0.shard", {0, 4 * kMiB});
  CHECK(load.check().keeping == Keeping::emptied_by_open);
}

TEST_CASE("reading leaves no page behind, whatever advice has left") {
  const OneFile load({.uncached = true});
  load.checkpoint.kernel.make_resident("0.shard", {0, 1 * kMiB});
  CHECK(load.check().keeping == Keeping::uncached);
  CHECK(load.checkpoint.kernel.served_bytes() == 2);
}

TEST_CASE("where all is resident nothing is read") {
  const OneFile load;
  load.checkpoint.kernel.make_resident("0.shard", {0, 4 * kMiB});
  const KeepingCheck found = load.check();
  CHECK(found.keeping == Keeping::keeps);
  CHECK(found.read_bytes == 0);
  CHECK(load.checkpoint.io.calls(Operation::pread) == 0);
}

TEST_CASE("the page that is tried is the last one that is not resident, of the first such range") {
  const std::uint64_t pages = 4 * kMiB / page_bytes();
  for (const std::uint64_t absent :
       {std::uint64_t{0}, std::uint64_t{1}, pages / 2 - 1, pages * 2 / 3, pages - 1}) {
    CAPTURE(absent);
    const OneFile load(kLonePages);
    const std::uint64_t at = absent * page_bytes();
    load.checkpoint.kernel.make_resident("0.shard", {0, at});
    load.checkpoint.kernel.make_resident("0.shard", {at + page_bytes(), 4 * kMiB});
    CHECK(load.check({{4096, 0}, {0, 4 * kMiB}}).keeping == Keeping::keeps);
    CHECK(load.checkpoint.resident_bytes() == 4 * kMiB);
    CHECK(load.checkpoint.kernel.wait_until_requested("0.shard", at, std::chrono::seconds(0)));
  }
}

TEST_CASE("the end of a file that is no whole page") {
  for (const bool open_empties : {false, true}) {
    const OneFile load({.open_empties = open_empties}, 5000);
    CHECK(load.check({{0, 5000}}).keeping ==
          (open_empties ? Keeping::emptied_by_open : Keeping::keeps));
  }
}

TEST_CASE("unknown: residency is refused, or not told truly") {
  const OneFile refused({.cachestat_errno = EPERM, .owner = false});
  CHECK(refused.check().keeping == Keeping::unknown);
  CHECK(refused.checkpoint.io.calls(Operation::pread) == 0);
  const OneFile overlay({.blind_cachestat = true});
  CHECK(overlay.check().keeping == Keeping::unknown);
}

TEST_CASE("an old kernel without cachestat") {
  const OneFile keeps({.cachestat_errno = ENOSYS});
  CHECK(keeps.check().keeping == Keeping::keeps);
  const OneFile empties({.open_empties = true, .cachestat_errno = ENOSYS});
  CHECK(empties.check().keeping == Keeping::emptied_by_open);
  const OneFile uncached({.uncached = true, .cachestat_errno = ENOSYS});
  CHECK(uncached.check().keeping == Keeping::unknown);  // mmap, and mincore with it, fails
}

TEST_CASE("unknown: the page cannot be read, or the file cannot be opened again") {
  for (const Operation operation : {Operation::pread, Operation::open}) {
    const OneFile load;
    load.checkpoint.io.add({.operation = operation});
    CHECK(load.check().keeping == Keeping::unknown);
  }
}

TEST_CASE("a hole in a tmpfs is no mount without page cache") {
  const std::string shm = "/dev/shm/shardahead-keeping-test";
  const int descriptor = ::open(shm.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) return;
  CHECK(::ftruncate(descriptor, 1 << 20) == 0);
  ::close(descriptor);
  const auto file = File::open(system_file_io(), shm);
  const Keeping found = check_keeping(system_file_io(), *file, {{0, 1 << 20}}).keeping;
  ::unlink(shm.c_str());
  CHECK_FALSE(keeps_nothing(found));
}

TEST_CASE("the local disk keeps pages") {
  const TemporaryFolder folder;
  const auto file = File::open(system_file_io(), folder.write("a", 1 * kMiB));
  CHECK(check_keeping(system_file_io(), *file, {{0, 1 * kMiB}}).keeping == Keeping::keeps);
}

TEST_SUITE_END();
