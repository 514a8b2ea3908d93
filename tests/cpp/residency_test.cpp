// residency: who answers, who is believed, and a real file that is warmed and evicted.
#include "node/residency.h"

#include <doctest/doctest.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <string_view>

#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("residency");

namespace {

constexpr std::uint64_t kFileBytes = 1 * kMiB + 100;

// A file of which the first half MiB is resident.
struct HalfResident {
  explicit HalfResident(const SimulatedKernel& kernel) : checkpoint({kFileBytes}, kernel) {
    checkpoint.open();
    checkpoint.kernel.make_resident("0.shard", {0, kMiB / 2});
    file = checkpoint.files->acquire(0);
  }
  SimulatedCheckpoint checkpoint;
  std::shared_ptr<const File> file;
};

bool keeps_files_in_memory(const std::string& path) {
  struct statfs found{};
  return ::statfs(path.c_str(), &found) != 0 || found.f_type == TMPFS_MAGIC ||
         found.f_type == RAMFS_MAGIC;
}

}  // namespace

TEST_CASE("cachestat answers where it is supported, and mincore is not asked") {
  const HalfResident half({});
  const Residency found = residency(half.checkpoint.io, *half.file);
  CHECK(found.source == ResidencySource::cachestat);
  CHECK(found.resident_bytes == kMiB / 2);
  CHECK(half.checkpoint.io.calls(Operation::mincore) == 0);
}

TEST_CASE("an old kernel is asked through mincore, by the owner") {
  const HalfResident half({.cachestat_errno = ENOSYS});
  const Residency found = residency(half.checkpoint.io, *half.file);
  CHECK(found.source == ResidencySource::mincore);
  CHECK(found.resident_bytes == kMiB / 2);
  // mincore wants whole pages, whatever was asked.
  CHECK(residency(half.checkpoint.io, *half.file, {100, 1000}).resident_bytes == 1000);
}

TEST_CASE("to a stranger mincore claims everything, so nothing is known, and why is said") {
  for (const int refused : {EPERM, ENOSYS}) {
    const HalfResident half({.cachestat_errno = refused, .owner = false});
    const Residency found = residency(half.checkpoint.io, *half.file);
    CHECK(found.source == ResidencySource::unknown);
    CHECK_FALSE(found.resident_bytes);
    CHECK(found.errno_value == refused);
    CHECK(std::string_view(found.reason).find("owner") != std::string_view::npos);
    CHECK(half.checkpoint.io.calls(Operation::mincore) == 0);
  }
}

TEST_CASE("what is on its way, or failed, is not up to date") {
  SimulatedCheckpoint checkpoint({64 * kKiB + 100});
  checkpoint.open();
  const auto file = checkpoint.files->acquire(0);
  const ByteRange whole{0, file->status().size_bytes};
  CHECK(up_to_date_bytes(checkpoint.io, *file, whole) == 0);
  checkpoint.kernel.fadvise_willneed(file->descriptor(), whole);
  CHECK(residency(checkpoint.io, *file).resident_bytes == whole.length);
  CHECK(up_to_date_bytes(checkpoint.io, *file, whole) == 0);
  checkpoint.kernel.make_resident("0.shard", whole);
  CHECK(up_to_date_bytes(checkpoint.io, *file, whole) == whole.length);
  CHECK(up_to_date_bytes(checkpoint.io, *file, {64 * kKiB + 5, 20}) == 20);
  checkpoint.kernel.spoil("0.shard", {8 * kKiB, 1});
  CHECK(residency(checkpoint.io, *file).resident_bytes == whole.length);
  CHECK(up_to_date_bytes(checkpoint.io, *file, whole) == whole.length - page_bytes());
  checkpoint.io.add({.operation = Operation::mincore, .errno_value = ENODEV});
  CHECK_FALSE(up_to_date_bytes(checkpoint.io, *file, whole));
  SimulatedCheckpoint anothers({100}, {.owner = false});
  anothers.open();
  CHECK_FALSE(up_to_date_bytes(anothers.io, *anothers.files->acquire(0), {0, 100}));
}

TEST_CASE("pages that cannot be used are told apart from those that can") {
  const HalfResident half({});
  const Residency before = usable_residency(half.checkpoint.io, *half.file);
  CHECK(before.resident_bytes == kMiB / 2);
  CHECK(before.pending_bytes == 0);
  CHECK(before.source == ResidencySource::cachestat);
  half.checkpoint.kernel.spoil("0.shard", {0, 3 * page_bytes()});
  const Residency spoiled = usable_residency(half.checkpoint.io, *half.file);
  CHECK(spoiled.resident_bytes == kMiB / 2 - 3 * page_bytes());
  CHECK(spoiled.pending_bytes == 3 * page_bytes());
  CHECK(spoiled.source == ResidencySource::mincore);
}

TEST_CASE(
    "nothing is pending where nothing is there, nor known to be where mincore cannot be asked") {
  SimulatedCheckpoint cold({kFileBytes});
  cold.open();
  const Residency found = usable_residency(cold.io, *cold.files->acquire(0));
  CHECK(found.resident_bytes == 0);
  CHECK(found.pending_bytes == 0);
  CHECK(cold.io.calls(Operation::mincore) == 0);
  const HalfResident anothers({.owner = false});
  const Residency told = usable_residency(anothers.checkpoint.io, *anothers.file);
  CHECK(told.resident_bytes == kMiB / 2);
  CHECK_FALSE(told.pending_bytes);
  const HalfResident old({.cachestat_errno = ENOSYS});
  const Residency usable = usable_residency(old.checkpoint.io, *old.file);
  CHECK(usable.resident_bytes == kMiB / 2);
  CHECK_FALSE(usable.pending_bytes);
  CHECK(usable.errno_value == ENOSYS);
}

TEST_CASE("where both calls fail nothing is known") {
  const HalfResident half({.cachestat_errno = ENOSYS});
  half.checkpoint.io.add({.operation = Operation::mincore, .errno_value = ENODEV});
  const Residency found = residency(half.checkpoint.io, *half.file);
  CHECK(found.source == ResidencySource::unknown);
  CHECK(std::string_view(found.reason).find("mincore") != std::string_view::npos);
}

TEST_CASE("ranges are cut to the file, and its last page to its bytes") {
  const HalfResident half({});
  half.checkpoint.kernel.make_resident("0.shard", {0, kFileBytes});
  FaultyFileIo& io = half.checkpoint.io;
  CHECK(residency(io, *half.file).resident_bytes == kFileBytes);
  CHECK(residency(io, *half.file, {kMiB, kMiB}).resident_bytes == 100);
  CHECK(residency(io, *half.file, {2 * kMiB, kMiB}).resident_bytes == 0);
  CHECK(residency(io, *half.file, {5, 0}).resident_bytes == 0);
}

TEST_CASE("an eviction writes back first, and an empty range evicts nothing") {
  const HalfResident half({});
  CHECK(evict(half.checkpoint.io, *half.file, {0, 0}) == 0);
  CHECK(half.checkpoint.io.calls(Operation::fadvise_dontneed) == 0);
  CHECK(evict(half.checkpoint.io, *half.file, {0, kMiB / 4}) == 0);
  CHECK(half.checkpoint.io.calls(Operation::fdatasync) == 1);
  CHECK(residency(half.checkpoint.io, *half.file).resident_bytes == kMiB / 4);
  half.checkpoint.io.add({.operation = Operation::fdatasync});
  CHECK(evict(half.checkpoint.io, *half.file, {0, kMiB}) == -EIO);
}

TEST_CASE("a real file is warmed and evicted") {
  const TemporaryFolder folder;
  const std::string path = folder.write("a", kFileBytes);
  if (keeps_files_in_memory(path)) {
    MESSAGE("skipped: the temporary folder is in memory, whose files cannot be evicted");
    return;
  }
  FileIo& io = system_file_io();
  const auto file = File::open(io, path);
  if (residency(io, *file).source == ResidencySource::unknown) {
    MESSAGE("skipped: this system does not tell residency: " << residency(io, *file).reason);
    return;
  }
  REQUIRE(evict(io, *file, {0, kFileBytes}) == 0);
  CHECK(residency(io, *file).resident_bytes == 0);
  std::vector<std::byte> buffer(kFileBytes);
  std::uint64_t done = 0;
  REQUIRE(pread_full(io, file->descriptor(), buffer.data(), {0, kFileBytes}, done) == 0);
  REQUIRE(done == kFileBytes);
  CHECK(residency(io, *file).resident_bytes == kFileBytes);
  if (page_bytes() != static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE))) return;
  CHECK(io.mincore(file->descriptor(), {0, kFileBytes}) ==
        static_cast<std::int64_t>(align_up(kFileBytes, page_bytes()) / page_bytes()));
}

TEST_SUITE_END();
