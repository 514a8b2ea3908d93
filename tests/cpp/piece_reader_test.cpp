// piece_reader: short reads, errors, files that end early, advice only where it helps.
#include "reader/piece_reader.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <stdexcept>

#include "base/proc_text.h"
#include "reader/tensor_reader.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("piece_reader");

namespace {

struct Reading {
  explicit Reading(std::uint64_t size_bytes = 4 * kMiB, SimulatedKernel kernel = {})
      : checkpoint({size_bytes}, kernel), reader(checkpoint.io, {SimulatedCheckpoint::path(0)}) {}

  PieceResult read(ByteRange range) {
    bytes.assign(range.length, std::byte{0});
    return reader.read(0, range, bytes.data());
  }
  [[nodiscard]] bool has(ByteRange range) const {
    for (std::uint64_t i = 0; i < range.length; ++i) {
      if (bytes[i] != SimulatedFileIo::content("0.shard", range.offset + i)) return false;
    }
    return true;
  }

  SimulatedCheckpoint checkpoint;
  PieceReader reader;
  std::vector<std::byte> bytes;
};

}  // namespace

TEST_CASE("any range, through short reads") {
  for (const std::uint64_t limit_bytes : {1U, 4095U, 100000U}) {
    Reading reading;
    reading.checkpoint.io.add({.kind = FaultKind::short_read, .limit_bytes = limit_bytes});
    for (const ByteRange range : {ByteRange{0, 1}, {4095, 2}, {100001, 12345}}) {
      const PieceResult result = reading.read(range);
      CHECK_FALSE(result.error);
      CHECK(result.read_bytes == range.length);
      CHECK(result.file_bytes == 4 * kMiB);
      CHECK(reading.has(range));
    }
  }
}

TEST_CASE("an error is tried again once, and tells where it lies") {
  Reading reading;
  reading.checkpoint.io.add({.from_offset = 9000, .to_offset = 9001, .times = 1});
  CHECK_FALSE(reading.read({0, 20000}).error);
  CHECK(reading.has({0, 20000}));
  reading.checkpoint.io.add({.kind = FaultKind::short_read, .times = 1, .limit_bytes = 9000});
  reading.checkpoint.io.add({.from_offset = 9000, .to_offset = 9001});
  const PieceResult result = reading.read({0, 20000});
  REQUIRE(result.error);
  CHECK(result.error->errno_value == EIO);
  CHECK(result.error->operation == "pread");
  CHECK(result.error->path == "0.shard");
  CHECK(result.error->offset == 9000);
  CHECK(result.read_bytes == 9000);
}

TEST_CASE("a file that became shorter is an error at its end") {
  Reading reading;
  CHECK_FALSE(reading.read({0, 10}).error);
  reading.checkpoint.kernel.truncate("0.shard", 10000);
  const PieceResult result = reading.read({5000, 20000});
  REQUIRE(result.error);
  CHECK(result.error->errno_value == ENODATA);
  CHECK(result.error->offset == 10000);
  CHECK(result.error->message().find("became shorter") != std::string::npos);
}

TEST_CASE("a file that cannot be opened") {
  Reading reading;
  reading.checkpoint.io.add({.operation = Operation::open, .errno_value = EACCES});
  const PieceResult result = reading.read({100, 10});
  REQUIRE(result.error);
  CHECK(result.error->errno_value == EACCES);
  CHECK(result.error->offset == 100);
  CHECK(result.file_bytes == 0);
  CHECK_THROWS_AS(static_cast<void>(reading.reader.path(1)), std::out_of_range);
}

TEST_CASE("it is opened once, and advised from the second piece on") {
  Reading reading(64 * kMiB);
  for (std::uint64_t at = 0; at < 64 * kMiB; at += 4 * kMiB) {
    CHECK_FALSE(reading.read({at, 4 * kMiB}).error);
    CHECK(reading.has({at, 4 * kMiB}));
  }
  CHECK(reading.checkpoint.io.calls(Operation::open) == 1);
  CHECK(reading.checkpoint.io.calls(Operation::fadvise_willneed) == 15 * 32);
  CHECK(reading.checkpoint.kernel.served_bytes() == 64 * kMiB);
  const std::uint64_t advices = reading.checkpoint.io.calls(Operation::fadvise_willneed);
  CHECK_FALSE(reading.read({0, 4 * kMiB}).error);  // resident by now
  CHECK(reading.checkpoint.io.calls(Operation::fadvise_willneed) == advices);
}

TEST_CASE("no advice where reads bypass the page cache, or where that is not known") {
  for (const SimulatedKernel& kernel :
       {SimulatedKernel{.uncached = true},
        SimulatedKernel{.cachestat_errno = EPERM, .owner = false}}) {
    Reading reading(16 * kMiB, kernel);
    for (std::uint64_t at = 0; at < 16 * kMiB; at += 4 * kMiB) {
      CHECK_FALSE(reading.read({at, 4 * kMiB}).error);
    }
    CHECK(reading.checkpoint.io.calls(Operation::fadvise_willneed) == 0);
    CHECK(reading.checkpoint.kernel.served_bytes() == 16 * kMiB);
  }
}

TEST_CASE("of tensors that are read as one the bad one is found") {
  Reading reading;
  reading.checkpoint.io.add({.from_offset = 2500, .to_offset = 2600});
  const std::vector<std::uint64_t> lengths_bytes{1000, 1000, 1000, 1000};
  std::vector<std::byte> bytes(4000);
  const PieceResult result = reading.reader.read_each(0, 0, lengths_bytes, bytes.data());
  REQUIRE(result.error);
  CHECK(result.error->offset == 2000);
  CHECK(result.read_bytes == 2000);
  reading.checkpoint.io.clear_faults();
  // Both tries of the whole fail, those of the tensors do not.
  reading.checkpoint.io.add({.times = 2});
  CHECK_FALSE(reading.reader.read_each(0, 0, lengths_bytes, bytes.data()).error);
}

TEST_CASE("a header: eight bytes and what they promise, if that can be") {
  const TemporaryFolder folder;
  const std::string path = folder.path("a");
  const auto write = [&](std::uint64_t length, const std::string& text) {
    std::string whole(8, '\0');
    std::memcpy(whole.data(), &length, 8);
    whole += text;
    FILE* file = std::fopen(path.c_str(), "wb");
    REQUIRE(file != nullptr);
    std::fwrite(whole.data(), 1, whole.size(), file);
    std::fclose(file);
  };
  // The header's bytes, and all that was read.
  const auto header_bytes = [&](bool through_mappings) {
    PieceReader reader(system_file_io(), {path}, through_mappings);
    const PieceResult result = reader.read_header(0);
    CHECK_FALSE(result.error);
    REQUIRE(result.header);
    const std::string text = file_text(path).value_or("");
    const std::uint64_t length = result.header->length_bytes(0);
    REQUIRE(length <= text.size());
    if (length > 0) CHECK(std::memcmp(result.header->tensor(0), text.data(), length) == 0);
    return length;
  };
  for (const bool through_mappings : {false, true}) {
    write(5, "{   }rest");
    CHECK(header_bytes(through_mappings) == 17);
    write(5, "{   }" + std::string(20'000, 'x'));
    CHECK(header_bytes(through_mappings) == kPrefixBytes);
    write(10'000, std::string(20'000, ' '));
    CHECK(header_bytes(through_mappings) == 10'008);
    // What cannot be a header: as much as tells what it is instead.
    write(10, "{   }rest");
    CHECK(header_bytes(through_mappings) == 17);
    write(~0ULL, std::string(20'000, 'x'));
    CHECK(header_bytes(through_mappings) == kPrefixBytes);
    write(0, "");
    CHECK(header_bytes(through_mappings) == 8);
    write(0, "0123");
    CHECK(header_bytes(through_mappings) == 12);
    for (const off_t bytes : {7, 0}) {
      REQUIRE(::truncate(path.c_str(), bytes) == 0);
      CHECK(header_bytes(through_mappings) == static_cast<std::uint64_t>(bytes));
    }
  }
}

TEST_CASE("a file that is opened again is the same where its bytes are, not its time") {
  const TemporaryFolder folder;
  std::vector<std::string> paths;
  for (int i = 0; i < 8; ++i) paths.push_back(folder.write(std::to_string(i), 100'000));
  PieceReader reader(system_file_io(), paths);
  std::vector<std::byte> bytes(50'000);
  const auto closes_first = [&] {
    for (std::size_t i = 1; i < paths.size(); ++i) {
      CHECK_FALSE(reader.read(i, {0, 10}, bytes.data()).error);
    }
  };
  for (std::uint64_t at = 0; at < 50'000; at += 1000) {
    CHECK_FALSE(reader.read(0, {at, 1000}, bytes.data()).error);
  }
  closes_first();
  const std::array<timespec, 2> times{timespec{1, 0}, timespec{1, 0}};
  REQUIRE(::utimensat(AT_FDCWD, paths[0].c_str(), times.data(), 0) == 0);
  CHECK_FALSE(reader.read(0, {50'000, 50'000}, bytes.data()).error);
  closes_first();
  // Of the same size, in the same file.
  {
    std::fstream changed(paths[0], std::ios::in | std::ios::out | std::ios::binary);
    changed.seekp(50'000);
    changed << std::string(50'000, '!');
  }
  REQUIRE(::utimensat(AT_FDCWD, paths[0].c_str(), std::array<timespec, 2>{}.data(), 0) == 0);
  const PieceResult mixed = reader.read(0, {0, 1000}, bytes.data());
  REQUIRE(mixed.error);
  CHECK(mixed.error->errno_value == ESTALE);
  CHECK(mixed.error->path == paths[0]);
}

TEST_CASE("a file that is not what was found when it was looked at is not read") {
  const TemporaryFolder folder;
  const std::string path = folder.write("a", 1000);
  FileStatus found;
  REQUIRE(system_file_io().status(path, found) == 0);
  std::vector<std::byte> bytes(10);
  const auto code = [&](const FileStatus& before) {
    PieceReader reader(system_file_io(), {path}, false, {before});
    const PieceResult result = reader.read(0, {0, 10}, bytes.data());
    return result.error ? result.error->errno_value : 0;
  };
  FileStatus touched = found;
  touched.modified_nanoseconds -= 1;
  CHECK(code(found) == 0);
  CHECK(code(touched) == 0);
  FileStatus longer = found;
  longer.size_bytes += 1;
  CHECK(code(longer) == ENODATA);
  FileStatus another = found;
  another.size_bytes -= 1;
  CHECK(code(another) == ESTALE);
  another = found;
  another.inode += 1;
  CHECK(code(another) == ESTALE);
}

namespace {

// Every second KiB of 64, from byte 1000 on.
ByteRuns every_second_kib() { return {1 * kKiB, {{64, 2 * kKiB}}}; }
constexpr std::uint64_t kRunsOffset = 1000;

PieceResult read_runs(Reading& reading, ByteRange packed = {0, 64 * kKiB}) {
  reading.bytes.assign(packed.length, std::byte{0});
  return reading.reader.read_runs(0, kRunsOffset, every_second_kib(), packed, reading.bytes.data());
}

bool has_run(const Reading& reading, std::uint64_t run) {
  for (std::uint64_t i = 0; i < kKiB; ++i) {
    const std::uint64_t at = kRunsOffset + run * 2 * kKiB + i;
    if (reading.bytes[run * kKiB + i] != SimulatedFileIo::content("0.shard", at)) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("runs with short gaps are read at once, and land packed") {
  Reading reading(4 * kMiB, {.read_window_bytes = 4096});
  const PieceResult result = read_runs(reading);
  CHECK_FALSE(result.error);
  CHECK(result.file_bytes == 4 * kMiB);
  CHECK(result.read_bytes == every_second_kib().extent_bytes());
  for (std::uint64_t run = 0; run < 64; ++run) CHECK(has_run(reading, run));
  CHECK(reading.checkpoint.io.calls(Operation::pread) == 1);
  // Any of the packed bytes.
  const std::vector<std::byte> all = reading.bytes;
  CHECK_FALSE(read_runs(reading, {1500, 3000}).error);
  CHECK(std::equal(reading.bytes.begin(), reading.bytes.end(), all.begin() + 1500));
}

TEST_CASE("runs that are far are read by themselves") {
  Reading reading(64 * kMiB, {.read_window_bytes = 4096});
  const ByteRuns runs(8192, {{4, 8 * kMiB}});
  std::vector<std::byte> bytes(runs.packed_bytes());
  const PieceResult result =
      reading.reader.read_runs(0, 4096, runs, {0, bytes.size()}, bytes.data());
  CHECK_FALSE(result.error);
  CHECK(result.read_bytes == 4 * 8192);
  CHECK(reading.checkpoint.io.calls(Operation::pread) == 4);
  const std::uint64_t pages = align_up(4096 + 8192, page_bytes()) - align_down(4096, page_bytes());
  CHECK(reading.checkpoint.kernel.served_bytes() == 4 * pages);
  CHECK(bytes[8192 + 5] == SimulatedFileIo::content("0.shard", 4096 + 8 * kMiB + 5));
}

TEST_CASE("what cannot be read between runs is no error, in a run it is, where that lies") {
  Reading reading;
  const std::uint64_t gap = kRunsOffset + 20 * 2 * kKiB + 1 * kKiB;
  reading.checkpoint.io.add({.from_offset = gap, .to_offset = gap + 1 * kKiB});
  CHECK_FALSE(read_runs(reading).error);
  for (std::uint64_t run = 0; run < 64; ++run) CHECK(has_run(reading, run));
  reading.checkpoint.io.add({.from_offset = gap + 1 * kKiB + 10, .to_offset = gap + 1 * kKiB + 11});
  const PieceResult result = read_runs(reading);
  REQUIRE(result.error);
  CHECK(result.error->errno_value == EIO);
  CHECK(result.error->path == "0.shard");
  CHECK(result.error->offset == gap + 1 * kKiB);  // the run, which fails as one
}

TEST_CASE("a file that ends between runs, and within one") {
  Reading reading;
  CHECK_FALSE(reading.read({0, 10}).error);
  reading.checkpoint.kernel.truncate("0.shard", kRunsOffset + 63 * 2 * kKiB + 1 * kKiB);
  CHECK_FALSE(read_runs(reading).error);
  reading.checkpoint.kernel.truncate("0.shard", kRunsOffset + 40 * 2 * kKiB + 100);
  const PieceResult result = read_runs(reading);
  REQUIRE(result.error);
  CHECK(result.error->errno_value == ENODATA);
  CHECK(result.error->offset == kRunsOffset + 40 * 2 * kKiB + 100);
}

TEST_CASE("through mappings: the same bytes, and the same errors") {
  const TemporaryFolder folder;
  const std::string path = folder.path("a");
  std::string text(6 * page_bytes(), 'x');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i / 3);
  std::ofstream(path, std::ios::binary) << text;
  PieceReader reader(system_file_io(), {path, folder.path("missing")}, true);
  reader.map(0);
  reader.map(1);
  std::vector<std::byte> bytes(text.size());
  const PieceResult all = reader.read(0, {0, text.size()}, bytes.data());
  CHECK_FALSE(all.error);
  CHECK(all.read_bytes == text.size());
  CHECK(all.file_bytes == text.size());
  CHECK(std::memcmp(bytes.data(), text.data(), text.size()) == 0);

  const PieceResult missing = reader.read(1, {0, 10}, bytes.data());
  REQUIRE(missing.error);
  CHECK(missing.error->errno_value == ENOENT);
  CHECK(missing.error->operation == "stat");

  REQUIRE(::truncate(path.c_str(), static_cast<off_t>(2 * page_bytes())) == 0);
  const PieceResult cut = reader.read(0, {page_bytes(), 4 * page_bytes()}, bytes.data());
  REQUIRE(cut.error);
  CHECK(cut.error->errno_value == ENODATA);
  CHECK(cut.error->offset == 2 * page_bytes());
  CHECK(cut.read_bytes == page_bytes());
}

TEST_CASE("through mappings: runs, and the end of the file in one") {
  const TemporaryFolder folder;
  const std::string path = folder.path("a");
  std::string text(6 * page_bytes(), 'x');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i / 3);
  std::ofstream(path, std::ios::binary) << text;
  PieceReader reader(system_file_io(), {path}, true);
  const ByteRuns runs(100, {{6, page_bytes()}});
  std::vector<std::byte> bytes(600);
  CHECK_FALSE(reader.read_runs(0, 7, runs, {0, 600}, bytes.data()).error);
  for (std::size_t run = 0; run < 6; ++run) {
    CHECK(std::memcmp(bytes.data() + run * 100, text.data() + 7 + run * page_bytes(), 100) == 0);
  }
  REQUIRE(::truncate(path.c_str(), static_cast<off_t>(4 * page_bytes())) == 0);
  const PieceResult cut = reader.read_runs(0, 7, runs, {0, 600}, bytes.data());
  REQUIRE(cut.error);
  CHECK(cut.error->errno_value == ENODATA);
}

TEST_CASE("what a mapping cannot give is not read from another version of the file") {
  const TemporaryFolder folder;
  const std::string path = folder.path("a");
  std::ofstream(path, std::ios::binary) << std::string(4 * page_bytes(), 'x');
  PieceReader reader(system_file_io(), {path}, true);
  reader.map(0);
  REQUIRE(::truncate(path.c_str(), static_cast<off_t>(page_bytes())) == 0);
  REQUIRE(::unlink(path.c_str()) == 0);
  std::ofstream(path, std::ios::binary) << std::string(5 * page_bytes(), 'y');
  std::vector<std::byte> bytes(4 * page_bytes());
  const PieceResult mixed = reader.read(0, {0, 4 * page_bytes()}, bytes.data());
  REQUIRE(mixed.error);
  CHECK(mixed.error->errno_value == ESTALE);
  CHECK(mixed.read_bytes == page_bytes());
}

TEST_SUITE_END();
