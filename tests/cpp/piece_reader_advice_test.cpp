// piece_reader: by which descriptor the kernel is told of what is to be read, and of how much.
#include <doctest/doctest.h>

#include "plan/strategy.h"
#include "reader/piece_reader.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("piece_reader_advice");

namespace {

struct Reading {
  explicit Reading(std::uint64_t size_bytes)
      : checkpoint({size_bytes}), reader(checkpoint.io, {SimulatedCheckpoint::path(0)}) {}

  void read(ByteRange range, bool advises) {
    std::vector<std::byte> bytes(range.length);
    const PieceResult result = reader.read(0, range, bytes.data(), advises);
    CHECK_FALSE(result.error);
    CHECK(result.read_bytes == range.length);
    CHECK(bytes.back() == SimulatedFileIo::content("0.shard", range.end() - 1));
  }
  [[nodiscard]] std::uint64_t advices() const {
    return checkpoint.io.calls(Operation::fadvise_willneed);
  }

  SimulatedCheckpoint checkpoint;
  PieceReader reader;
};

}  // namespace

TEST_CASE("what was read in order is advised by a descriptor that is never read") {
  Reading reading(64 * kMiB);
  reading.read({0, 1 * kMiB}, false);
  reading.read({1 * kMiB, 1 * kMiB}, false);
  CHECK(reading.advices() == 0);
  CHECK(reading.checkpoint.io.calls(Operation::open) == 1);
  for (std::uint64_t at = 2 * kMiB; at < 64 * kMiB; at += kMiB) reading.read({at, kMiB}, true);
  CHECK(reading.advices() == 62 * 8UL);
  CHECK(reading.checkpoint.io.calls(Operation::open) == 2);
  CHECK(reading.checkpoint.kernel.served_bytes() == 64 * kMiB);
}

TEST_CASE("where that descriptor cannot be had, the other is advised, and what is read is right") {
  Reading reading(8 * kMiB);
  reading.read({0, 1 * kMiB}, false);
  reading.checkpoint.io.add({.operation = Operation::open, .errno_value = EMFILE});
  reading.read({1 * kMiB, 1 * kMiB}, true);
  CHECK(reading.advices() == 8);
}

TEST_CASE("advice takes in the page in which a piece ends") {
  Reading reading(8 * kMiB);
  reading.read({0, 100}, true);
  reading.read({1 * kMiB + 100, 2 * kDefaultStepBytes}, true);
  CHECK(reading.advices() == 3);
}

TEST_SUITE_END();
