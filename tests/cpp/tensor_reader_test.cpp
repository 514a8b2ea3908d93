// tensor_reader: bytes, order, the bound on what is ahead, errors, servers that do not answer,
// fork.
#include "reader/tensor_reader.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <deque>
#include <fstream>
#include <numeric>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("tensor_reader");

namespace {

constexpr TensorReaderOptions kSmall{
    .threads = 4, .ahead_bytes = 1 * kMiB, .piece_bytes = 64 * kKiB};

struct Reading {
  explicit Reading(const std::vector<std::uint64_t>& sizes_bytes,
                   const TensorReaderOptions& options = kSmall, SimulatedKernel kernel = {})
      : checkpoint(sizes_bytes, kernel) {
    std::vector<std::string> paths;
    for (std::size_t i = 0; i < sizes_bytes.size(); ++i) {
      paths.push_back(SimulatedCheckpoint::path(i));
    }
    reader = std::make_unique<TensorReader>(checkpoint.io, std::move(paths), options);
  }

  SimulatedCheckpoint checkpoint;
  std::unique_ptr<TensorReader> reader;
};

bool has(const TakenPart& part, std::size_t tensor, std::size_t file, std::uint64_t offset) {
  const std::string path = SimulatedCheckpoint::path(file);
  for (std::uint64_t i = 0; i < part.memory->length_bytes(tensor); ++i) {
    if (part.memory->tensor(tensor)[i] != SimulatedFileIo::content(path, offset + i)) return false;
  }
  return true;
}

// For threads that outlive a test, one for each run of it.
FaultyFileIo& kept_io() {
  static auto& kept = *new std::deque<FaultyFileIo>;
  return kept.emplace_back(system_file_io());
}

}  // namespace

TEST_CASE("every byte of every tensor, with any number of threads") {
  for (const std::uint32_t threads : {1U, 2U, 8U}) {
    CAPTURE(threads);
    Reading reading({3 * kMiB, 5 * kMiB}, {threads, 1 * kMiB, 64 * kKiB});
    struct Expected {
      TensorReader::Part part;
      std::size_t file;
      std::uint64_t offset;
    };
    std::vector<Expected> expected;
    for (std::size_t file = 0; file < 2; ++file) {
      std::uint64_t at = 100;
      for (const std::uint64_t length : {1UL, 64UL * kKiB, 700001UL, 1500000UL}) {
        expected.push_back({reading.reader->add(file, at, {length}), file, at});
        at += length;
      }
      expected.push_back({reading.reader->add(file, at, {10, 0, 1000, 3}), file, at});
    }
    for (const auto& [part, file, offset] : expected) {
      const TakenPart taken = reading.reader->take(part);
      REQUIRE_FALSE(taken.error);
      std::uint64_t at = offset;
      for (std::size_t i = 0; i < taken.memory->count(); ++i) {
        CHECK(has(taken, i, file, at));
        at += taken.memory->length_bytes(i);
      }
      CHECK(taken.readable_bytes == at - offset);
    }
    CHECK(reading.checkpoint.kernel.most_loads_of_a_page() <= 1);
  }
}

TEST_CASE("no more is ahead than the bound says, and the next part at least") {
  Reading reading({64 * kMiB}, {4, 4 * kMiB, 1 * kMiB}, {.read_window_bytes = 4096});
  std::vector<TensorReader::Part> parts;
  for (std::uint64_t at = 0; at < 8; ++at) {
    parts.push_back(reading.reader->add(0, at * 2 * kMiB, {2 * kMiB}));
  }
  const auto large = reading.reader->add(0, 16 * kMiB, {20 * kMiB});
  for (std::size_t i = 0; i < 8; ++i) {
    const TakenPart taken = reading.reader->take(parts[i]);
    CHECK_FALSE(taken.error);
    // Two parts beyond those that were taken; after the last of them the large one is begun.
    if (i < 7) CHECK(reading.checkpoint.kernel.served_bytes() <= (i + 3) * 2 * kMiB);
  }
  CHECK(reading.checkpoint.kernel.wait_until_requested("0.shard", 16 * kMiB, kHangBound));
  CHECK(reading.reader->take(large).readable_bytes == 20 * kMiB);
}

TEST_CASE("it begins as one reader, in order, and what is little does not wait for that") {
  Reading reading({8 * kMiB, 1 * kMiB}, {4, 8 * kMiB, 1 * kMiB});
  FaultyFileIo& io = reading.checkpoint.io;
  io.add({.kind = FaultKind::stall, .path_suffix = "0.shard", .from_offset = 0, .to_offset = 1});
  const auto large = reading.reader->add(0, 0, {8 * kMiB});
  const auto little = reading.reader->add(1, 0, {1000});
  CHECK(has(reading.reader->take(little), 0, 1, 0));
  CHECK(io.calls(Operation::pread) <= 2);
  CHECK(io.calls(Operation::fadvise_willneed) == 0);
  io.release_stalled();
  CHECK(has(reading.reader->take(large), 0, 0, 0));
}

TEST_CASE("what is waited for comes first, however much is ahead of it") {
  Reading reading({64 * kMiB});
  std::vector<TensorReader::Part> parts;
  for (std::uint64_t at = 0; at < 32; ++at) {
    parts.push_back(reading.reader->add(0, at * kMiB, {1 * kMiB}));
  }
  for (std::size_t i = 32; i-- > 0;) {
    const TakenPart taken = reading.reader->take(parts[i]);
    CHECK(has(taken, 0, 0, i * kMiB));
  }
}

TEST_CASE("an error belongs to its part, with the lowest offset") {
  for (const std::uint32_t threads : {1U, 8U}) {
    Reading reading({4 * kMiB}, {threads, 1 * kMiB, 64 * kKiB});
    reading.checkpoint.io.add({.from_offset = 1 * kMiB + 200000, .to_offset = 2 * kMiB});
    const auto good = reading.reader->add(0, 0, {1 * kMiB});
    const auto bad = reading.reader->add(0, 1 * kMiB, {1 * kMiB});
    const auto good_too = reading.reader->add(0, 2 * kMiB, {1 * kMiB});
    CHECK_FALSE(reading.reader->take(good).error);
    const TakenPart taken = reading.reader->take(bad);
    REQUIRE(taken.error);
    CHECK(taken.error->errno_value == EIO);
    CHECK(taken.error->offset == 1 * kMiB + 192 * kKiB);  // the piece, which fails as one
    CHECK(taken.readable_bytes == 192 * kKiB);
    CHECK_FALSE(reading.reader->take(good_too).error);
  }
}

TEST_CASE("of small tensors those before the bad one are there") {
  Reading reading({1 * kMiB});
  reading.checkpoint.io.add({.from_offset = 250, .to_offset = 251});
  const auto part = reading.reader->add(0, 0, {100, 100, 100, 100});
  const TakenPart taken = reading.reader->take(part);
  REQUIRE(taken.error);
  CHECK(taken.readable_bytes == 200);
  CHECK(has(taken, 0, 0, 0));
  CHECK(has(taken, 1, 0, 100));
}

namespace {

bool has_runs(const TakenPart& part, std::uint64_t offset, const ByteRuns& runs) {
  std::uint64_t at = 0;
  for (const ByteRange& range : runs.ranges()) {
    for (std::uint64_t i = 0; i < range.length; ++i, ++at) {
      const std::uint64_t from = offset + range.offset + i;
      if (part.memory->tensor(0)[at] != SimulatedFileIo::content("0.shard", from)) return false;
    }
  }
  return at == part.memory->length_bytes(0);
}

}  // namespace

TEST_CASE("parts of tensors land packed, with any number of threads") {
  const std::vector<ByteRuns> parts{ByteRuns(3, {{50'000, 20}}),
                                    ByteRuns(300'000, {{2, 600'002}, {2, 300'001}}),
                                    ByteRuns(70'000, {{4, 1 * kMiB}}), ByteRuns(200'000)};
  for (const std::uint32_t threads : {1U, 2U, 8U}) {
    CAPTURE(threads);
    Reading reading({8 * kMiB}, {threads, 1 * kMiB, 64 * kKiB});
    std::vector<TensorReader::Part> added;
    for (const ByteRuns& runs : parts) added.push_back(reading.reader->add_runs(0, 1234, runs));
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const TakenPart taken = reading.reader->take(added[i]);
      REQUIRE_FALSE(taken.error);
      CHECK(taken.readable_bytes == parts[i].packed_bytes());
      CHECK(taken.file_bytes == 8 * kMiB);
      CHECK(has_runs(taken, 1234, parts[i]));
    }
  }
}

TEST_CASE("far runs of one part are read by several threads at once") {
  Reading reading({64 * kMiB}, {4, 1 * kMiB, 64 * kKiB});
  reading.checkpoint.io.add({.kind = FaultKind::stall});
  const auto part = reading.reader->add_runs(0, 0, ByteRuns(4096, {{8, 8 * kMiB}}));
  CHECK(reading.checkpoint.io.wait_until_stalled(4, kHangBound));
  reading.checkpoint.io.release_stalled();
  CHECK_FALSE(reading.reader->take(part).error);
}

TEST_CASE("an error in one run is that of the part, at the lowest offset; no gap has one") {
  for (const std::uint32_t threads : {1U, 8U}) {
    Reading reading({64 * kMiB}, {threads, 1 * kMiB, 64 * kKiB});
    reading.checkpoint.io.add({.from_offset = 8192, .to_offset = 8193});  // between runs
    reading.checkpoint.io.add({.from_offset = 16 * kMiB + 10, .to_offset = 16 * kMiB + 11});
    reading.checkpoint.io.add({.from_offset = 40 * kMiB, .to_offset = 41 * kMiB});
    const ByteRuns runs(4096, {{8, 8 * kMiB}});
    const auto bad = reading.reader->add_runs(0, 0, runs);
    const auto good = reading.reader->add_runs(0, 4096, ByteRuns(4096, {{8, 8192}}));
    const TakenPart taken = reading.reader->take(bad);
    REQUIRE(taken.error);
    CHECK(taken.error->errno_value == EIO);
    CHECK(taken.error->offset == 16 * kMiB);
    CHECK(taken.readable_bytes == 0);
    CHECK_FALSE(reading.reader->take(good).error);
  }
}

TEST_CASE("a stalled run can be left, and closing ends the wait for it") {
  Reading reading({64 * kMiB});
  reading.checkpoint.io.add({.kind = FaultKind::stall});
  const auto part = reading.reader->add_runs(0, 0, ByteRuns(4096, {{8, 8 * kMiB}}));
  const auto interrupt = [] { throw std::runtime_error("interrupted"); };
  CHECK_THROWS_AS(reading.reader->take(part, interrupt), std::runtime_error);
  CHECK_THROWS_AS(reading.reader->take(part, [&] { reading.reader->close(); }), std::logic_error);
  reading.checkpoint.io.release_stalled();
}

TEST_CASE("a file that ends early, and one that is not there") {
  Reading reading({1 * kMiB, 1 * kMiB});
  reading.checkpoint.kernel.truncate("0.shard", 5000);
  reading.checkpoint.io.add(
      {.operation = Operation::open, .path_suffix = "1.shard", .errno_value = ENOENT});
  const auto cut = reading.reader->add(0, 0, {1 * kMiB});
  const auto missing = reading.reader->add(1, 0, {1 * kMiB});
  const TakenPart taken = reading.reader->take(cut);
  REQUIRE(taken.error);
  CHECK(taken.error->errno_value == ENODATA);
  CHECK(taken.error->offset == 5000);
  const auto error = reading.reader->take(missing).error;
  REQUIRE(error);
  CHECK(error->errno_value == ENOENT);
  CHECK_THROWS_AS(reading.reader->add(2, 0, {1}), std::out_of_range);
}

TEST_CASE("a stalled read holds up no one else, the caller can leave, and so can the reader") {
  Reading reading({1 * kMiB, 1 * kMiB});
  reading.checkpoint.io.add({.kind = FaultKind::stall, .path_suffix = "0.shard"});
  const auto stalled = reading.reader->add(0, 0, {100});
  const auto other = reading.reader->add(1, 0, {100});
  CHECK_FALSE(reading.reader->take(other).error);
  int looks = 0;
  const auto interrupt = [&] {
    if (++looks > 1) throw std::runtime_error("interrupted");
  };
  CHECK_THROWS_AS(reading.reader->take(stalled, interrupt), std::runtime_error);
  CHECK_FALSE(reading.reader->ready(stalled));
  reading.reader.reset();
  CHECK(reading.checkpoint.kernel.open_descriptors() > 0);  // the thread still uses it
  reading.checkpoint.io.release_stalled();
  CHECK(reading.checkpoint.kernel.wait_until_closed(kHangBound));
}

TEST_CASE("closing ends a wait, and what was not taken cannot be") {
  Reading reading({1 * kMiB});
  reading.checkpoint.io.add({.kind = FaultKind::stall});
  const auto part = reading.reader->add(0, 0, {100});
  CHECK_THROWS_AS(reading.reader->take(part, [&] { reading.reader->close(); }), std::logic_error);
  reading.reader->close();
  CHECK_THROWS_AS(reading.reader->take(part), std::logic_error);
  reading.checkpoint.io.release_stalled();
}

TEST_CASE("a part is taken once") {
  Reading reading({1 * kMiB});
  const auto part = reading.reader->add(0, 0, {100});
  CHECK_FALSE(reading.reader->take(part).error);
  CHECK_THROWS_AS(reading.reader->take(part), std::logic_error);
}

TEST_CASE("more memory than there is fails its part alone") {
  Reading reading({1 * kMiB});
  const auto huge = reading.reader->add(0, 0, {1ULL << 60U});
  const auto part = reading.reader->add(0, 0, {100});
  const TakenPart taken = reading.reader->take(huge);
  REQUIRE(taken.error);
  CHECK(taken.error->errno_value == ENOMEM);
  CHECK_FALSE(reading.reader->take(part).error);
}

TEST_CASE("a forked child reads by itself, and leaves the parent alone") {
  const TemporaryFolder folder;
  const std::string path = folder.write("a", 1 * kMiB);
  TensorReader reader(system_file_io(), {path}, kSmall);
  const auto first = reader.add(0, 0, {1000});
  const auto second = reader.add(0, 1000, {500 * kKiB});
  CHECK_FALSE(reader.take(first).error);
  const pid_t child = ::fork();
  if (child == 0) {
    const TakenPart taken = reader.take(second);
    const bool good = !taken.error && taken.readable_bytes == 500 * kKiB && reader.ready(second);
    const TakenPart added = reader.take(reader.add(0, 0, {10, 20}));
    const ByteRuns runs(100, {{300, 1000}});
    const TakenPart narrowed = reader.take(reader.add_runs(0, 5, runs));
    reader.close();
    const bool packed = !narrowed.error && narrowed.memory->length_bytes(0) == 30'000;
    ::_exit(good && !added.error && packed ? 0 : 1);
  }
  int status = -1;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK_FALSE(reader.take(second).error);
}

TEST_CASE("without a thread take() reads, and close() does not wait for that") {
  class NoThreads final : public Runtime {
   public:
    Time now() noexcept override { return system_runtime().now(); }
    void wait_for_ring(const DoorbellWord& word, std::uint32_t seen,
                       std::chrono::nanoseconds timeout) noexcept override {
      system_runtime().wait_for_ring(word, seen, timeout);
    }
    void start_thread(const std::string&, std::function<void()>) override {
      throw std::system_error(EAGAIN, std::generic_category());
    }
  } runtime;
  const SimulatedCheckpoint checkpoint({1 * kMiB});
  TensorReader reader(checkpoint.io, {SimulatedCheckpoint::path(0)}, kSmall, runtime);
  const auto part = reader.add(0, 0, {300 * kKiB});
  const auto other = reader.add(0, 300 * kKiB, {10});
  checkpoint.io.add({.kind = FaultKind::stall});
  TakenPart taken;
  std::thread taker([&] { taken = reader.take(part); });
  REQUIRE(checkpoint.io.wait_until_stalled(1, kHangBound));
  reader.close();
  checkpoint.io.release_stalled();
  taker.join();
  CHECK(has(taken, 0, 0, 0));
  CHECK_THROWS_AS(reader.take(other), std::logic_error);
}

TEST_CASE("options out of range") {
  Reading reading({1});
  CHECK_THROWS_AS(TensorReader(reading.checkpoint.io, {}, {.threads = 0}), std::invalid_argument);
  CHECK_THROWS_AS(TensorReader(reading.checkpoint.io, {}, {.threads = 257}), std::invalid_argument);
  CHECK_THROWS_AS(TensorReader(reading.checkpoint.io, {}, {.piece_bytes = 0}),
                  std::invalid_argument);
}

TEST_CASE("through mappings all files are opened before the first part, once") {
  const TemporaryFolder folder;
  std::vector<std::string> paths;
  for (int i = 0; i < 20; ++i) {
    paths.push_back(folder.path(std::to_string(i)));
    if (i != 7) std::ofstream(paths.back()) << "0123456789";
  }
  FaultyFileIo& io = kept_io();
  TensorReader reader(io, paths, {.threads = 3, .through_mappings = true});
  reader.wait_opened();
  CHECK(io.calls(Operation::open) == 19);
  const TakenPart taken = reader.take(reader.add(3, 2, {4}));
  CHECK(taken.readable_bytes == 4);
  CHECK(io.calls(Operation::open) == 19);
  CHECK(reader.take(reader.add(7, 0, {4})).error->errno_value == ENOENT);
}

TEST_CASE("a wait for files that do not open can be interrupted") {
  const TemporaryFolder folder;
  std::ofstream(folder.path("a")) << "0123456789";
  FaultyFileIo& io = kept_io();
  io.add({.operation = Operation::open, .kind = FaultKind::stall});
  TensorReader reader(io, {folder.path("a")}, {.threads = 1, .through_mappings = true});
  CHECK_THROWS_AS(reader.wait_opened([] { throw std::runtime_error("interrupted"); }),
                  std::runtime_error);
  reader.close();
  reader.wait_opened();
  io.release_stalled();
}

TEST_SUITE_END();
