// request_cost: what a request costs by what was measured, and which gaps are read by that.
#include "plan/request_cost.h"

#include <doctest/doctest.h>

using namespace shardahead;

TEST_SUITE_BEGIN("request_cost");

namespace {

using std::chrono::duration_cast;
using std::chrono::nanoseconds;

// A slot that brings in so much a second, after a round trip.
struct Slot {
  double bytes_per_s;
  std::chrono::duration<double> round_trip;

  void fetch(RequestCost& cost, std::uint64_t bytes) const {
    const auto took = round_trip + std::chrono::duration<double>(double(bytes) / bytes_per_s);
    cost.note(bytes, duration_cast<nanoseconds>(took));
  }
};

}  // namespace

TEST_CASE("as long as little is known, gaps below a grain are read") {
  RequestCost cost;
  CHECK(cost.gap_bytes() == kSmallGapBytes);
  const Slot slot{100e6, std::chrono::milliseconds(20)};
  for (int i = 0; i < 3; ++i) slot.fetch(cost, 1 * kMiB);
  cost.note(0, std::chrono::seconds(1));  // says nothing
  cost.note(4096, nanoseconds(0));
  CHECK(cost.gap_bytes() == kSmallGapBytes);
}

TEST_CASE("a gap is worth what a slot brings in during a round trip") {
  RequestCost cost;
  const Slot slot{100e6, std::chrono::milliseconds(5)};
  for (const std::uint64_t mebibytes :
       std::initializer_list<std::uint64_t>{1, 2, 4, 4, 8, 8, 16, 16, 16, 16}) {
    slot.fetch(cost, mebibytes * kMiB);
  }
  // 500 kB; the shortest fetch and the best rate come near.
  CHECK(cost.gap_bytes() > 350'000);
  CHECK(cost.gap_bytes() < 550'000);
}

TEST_CASE("where a request costs nothing, or fetches are alike, only the least gaps are read") {
  RequestCost near;
  const Slot memory{1e9, std::chrono::microseconds(1)};
  for (const std::uint64_t mebibytes : std::initializer_list<std::uint64_t>{1, 2, 4, 8, 16})
    memory.fetch(near, mebibytes * kMiB);
  CHECK(near.gap_bytes() == kLeastGapBytes);
  RequestCost alike;
  const Slot far{100e6, std::chrono::milliseconds(50)};
  for (int i = 0; i < 100; ++i) far.fetch(alike, 16 * kMiB);
  CHECK(alike.gap_bytes() == kLeastGapBytes);
}

TEST_CASE("however wrong a measurement is, no more is read than one request carries") {
  RequestCost cost;
  for (int i = 0; i < 8; ++i) cost.note(1, std::chrono::hours(1));
  cost.note(kGiB, nanoseconds(1));
  cost.note(kGiB, std::chrono::hours(1));
  CHECK(cost.gap_bytes() <= kMostGapBytes);
  CHECK(cost.gap_bytes() >= kLeastGapBytes);
}

TEST_CASE("a queue is no round trip, and how fast a slot was before is forgotten") {
  RequestCost cost;
  const auto gap_of = [&](const Slot& slot) {
    for (int i = 0; i < 200; ++i) slot.fetch(cost, i % 4 == 0 ? 64 * kKiB : 16 * kMiB);
    return cost.gap_bytes();
  };
  Slot{50e6, std::chrono::milliseconds(2)}.fetch(cost, 4096);  // alone, before the others
  const std::uint64_t alone = gap_of({50e6, std::chrono::milliseconds(2)});
  CHECK(alone > 80'000);
  CHECK(alone < 100'000);
  CHECK(gap_of({50e6, std::chrono::seconds(1)}) < alone);
  CHECK(gap_of({20e6, std::chrono::milliseconds(2)}) < alone / 2);
  CHECK(gap_of({50e6, std::chrono::milliseconds(2)}) > alone * 99 / 100);
}

TEST_CASE("ranges are read as one where the gap is worth it") {
  const std::vector<ByteRange> wanted = {{0, 1000}, {1100, 1000}, {2300, 1000}};
  CHECK(requests_for(wanted, 0) == wanted);
  CHECK(requests_for(wanted, 100) == std::vector<ByteRange>{{0, 2100}, {2300, 1000}});
  CHECK(requests_for(wanted, 200) == std::vector<ByteRange>{{0, 3300}});
  CHECK(requests_for({}, 200).empty());
}

TEST_CASE("of gaps above a grain never more is read than a small share of what is wanted") {
  std::vector<ByteRange> wanted;
  for (std::uint64_t i = 0; i < 16; ++i) wanted.push_back({i * kMiB, 900 * kKiB});
  const std::uint64_t gap_bytes = kMiB - 900 * kKiB;
  const std::uint64_t wanted_bytes = 16 * 900 * kKiB;
  const std::uint64_t gaps = wanted_bytes / kMostGapShare / gap_bytes;
  REQUIRE(gaps > 0);
  const auto requests = requests_for(wanted, kMostGapBytes);
  CHECK(requests.size() == 16 - gaps);
  std::uint64_t bytes = 0;
  for (const ByteRange& range : requests) bytes += range.length;
  CHECK(bytes == wanted_bytes + gaps * gap_bytes);
}

TEST_SUITE_END();
