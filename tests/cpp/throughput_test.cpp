// throughput: where epochs begin and end, and what may be in flight after them. How the climb
// decides is in inflight_test.cpp.
#include "board/throughput.h"

#include <doctest/doctest.h>

using namespace shardahead;
using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_SUITE_BEGIN("throughput");

namespace {

constexpr std::uint64_t kBlock = 16 * kMiB;
constexpr std::uint64_t kEpoch = 3 * 4 * kBlock;  // of the climb's first value
constexpr Throughput::Time kStart{seconds(1000)};

}  // namespace

TEST_CASE("an epoch ends once enough was brought in since it began") {
  Throughput throughput(kBlock);
  CHECK(throughput.inflight_bytes() == 4 * kBlock);
  CHECK_FALSE(throughput.settle(kBlock, kBlock, kStart));
  CHECK_FALSE(throughput.settle(kBlock, kEpoch, kStart + milliseconds(100)));
  CHECK(throughput.settle(kBlock, kBlock + kEpoch, kStart + milliseconds(200)) == 2 * kBlock);
  CHECK(throughput.inflight_bytes() == 2 * kBlock);
  // The next one begins there, and half as much is enough for it.
  const std::uint64_t next = kBlock + kEpoch + kEpoch / 2;
  CHECK_FALSE(throughput.settle(kBlock, next - 1, kStart + milliseconds(300)));
  CHECK(throughput.settle(kBlock, next, kStart + milliseconds(300)));
}

TEST_CASE("the rate is that of the epoch: what came before says nothing") {
  // Half as much in flight is kept where it brings twice as much, and left where it does not.
  for (const bool faster : {true, false}) {
    CAPTURE(faster);
    Throughput throughput(kBlock);
    throughput.settle(kBlock, kBlock, kStart);
    throughput.settle(kBlock, kBlock + kEpoch, kStart + seconds(4));
    const auto end = kStart + seconds(4) + (faster ? seconds(1) : seconds(2));
    const auto found = throughput.settle(kBlock, kBlock + kEpoch + kEpoch / 2, end);
    CHECK(found == (faster ? kBlock : 8 * kBlock));
  }
}

TEST_CASE("the small blocks of the head are not measured") {
  Throughput throughput(kBlock);
  std::uint64_t read_bytes = 0;
  for (int i = 0; i < 100; ++i) {
    CHECK_FALSE(throughput.settle(kBlock / 4, read_bytes += kBlock, kStart + seconds(i)));
  }
  CHECK_FALSE(throughput.settle(kBlock / 2, read_bytes, kStart + seconds(200)));
  // Once it has begun, what others have settled is in it, whatever its size here.
  CHECK(throughput.settle(kBlock / 4, read_bytes + kEpoch, kStart + seconds(201)));
}

TEST_CASE("as long as all was resident no epoch begins") {
  Throughput throughput(kBlock);
  CHECK_FALSE(throughput.settle(kBlock, 0, kStart));
  CHECK_FALSE(throughput.settle(kBlock, 2 * kEpoch, kStart + seconds(100)));
  CHECK(throughput.settle(kBlock, 3 * kEpoch, kStart + seconds(101)));
}

TEST_CASE("who takes over goes on from where the other was, in the epoch that it knows") {
  Throughput throughput(kBlock);
  throughput.resume(16 * kBlock);
  CHECK(throughput.inflight_bytes() == 16 * kBlock);
  CHECK_FALSE(throughput.settle(kBlock, kBlock, kStart));
  CHECK_FALSE(throughput.settle(kBlock, kBlock + kEpoch, kStart + milliseconds(100)));
  CHECK(throughput.settle(kBlock, kBlock + 4 * kEpoch, kStart + seconds(1)) == 8 * kBlock);
}

TEST_CASE("a board that says less than before says that nothing was brought in") {
  Throughput throughput(kBlock);
  throughput.settle(kBlock, 2 * kEpoch, kStart);
  CHECK_FALSE(throughput.settle(kBlock, kEpoch, kStart + seconds(100)));
  CHECK(throughput.settle(kBlock, 3 * kEpoch, kStart + seconds(101)));
}

TEST_CASE("what limits is found by what was in flight, at each look of the epoch") {
  for (const std::uint64_t claimed_bytes : {2 * kBlock, 3 * kBlock}) {
    CAPTURE(claimed_bytes);
    Throughput throughput(kBlock);
    throughput.looked(100 * kBlock);  // before the epoch
    throughput.settle(kBlock, kBlock, kStart);
    for (const int looks : {1, 2}) {
      throughput.looked(claimed_bytes - kBlock);
      throughput.looked(claimed_bytes + kBlock);
      throughput.settle(kBlock, kBlock + static_cast<std::uint64_t>(looks) * kEpoch,
                        kStart + seconds(looks));
    }
    // Half as much brought as much; but with two blocks no more had been in flight before.
    CHECK(throughput.limit() == (claimed_bytes > 2 * kBlock ? Limit::storage : Limit::threads));
  }
}

TEST_CASE("who takes over knows what the other had found") {
  Throughput throughput(kBlock);
  throughput.resume(4 * kBlock, Limit::storage);
  CHECK(throughput.limit() == Limit::storage);
}

TEST_CASE("what was set stays") {
  Throughput throughput(kBlock, 5 * kBlock);
  throughput.resume(16 * kBlock);
  throughput.settle(kBlock, kBlock, kStart);
  CHECK(throughput.settle(kBlock, 100 * kEpoch, kStart + seconds(1)) == 5 * kBlock);
}

TEST_SUITE_END();
