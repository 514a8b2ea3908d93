// gap_cost: what was told of reads, and up to which length gaps are worth reading through then.
#include "plan/gap_cost.h"

#include <doctest/doctest.h>

#include <cmath>
#include <random>

using namespace shardahead;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

TEST_SUITE_BEGIN("gap_cost");

namespace {

// A link: so long for a request, so much a second for its bytes.
struct Link {
  double request_seconds = 0.001;
  double bytes_per_s = 300e6;
  double noise = 0;

  [[nodiscard]] double gap_bytes() const { return request_seconds * bytes_per_s; }
  nanoseconds duration(std::uint64_t bytes, std::mt19937_64& random) const {
    std::uniform_real_distribution<double> times(1 - noise, 1 + noise);
    const double s = (request_seconds + static_cast<double>(bytes) / bytes_per_s) * times(random);
    return nanoseconds(std::llround(s * 1e9));
  }
};

// Pieces, ends of them, runs.
std::uint64_t any_size(std::mt19937_64& random) {
  const std::uint64_t kind = random() % 3;
  return kind == 0 ? 4 * kMiB : kind == 1 ? 1 + random() % (4 * kMiB) : 128 * kKiB;
}

void note_any(GapCost& cost, const Link& link, std::mt19937_64& random, int reads) {
  for (int i = 0; i < reads; ++i) {
    const std::uint64_t bytes = any_size(random);
    cost.note(bytes, link.duration(bytes, random));
  }
}

bool is_about(std::uint64_t found, double expected, double off) {
  return std::abs(static_cast<double>(found) - expected) <= off * expected;
}

}  // namespace

TEST_CASE("before anything is known, and where sizes tell nothing") {
  GapCost cost;
  CHECK(cost.gap_bytes() == GapCost::kDefaultBytes);
  for (int i = 0; i < 100; ++i) cost.note(4 * kMiB, milliseconds(10));
  CHECK(is_about(cost.gap_bytes(), static_cast<double>(GapCost::kDefaultBytes), 0.01));
  GapCost untimed;  // on a clock that stands
  for (std::uint64_t i = 1; i < 100; ++i) untimed.note(i * kMiB, nanoseconds(0));
  untimed.note(0, seconds(1));
  CHECK(untimed.gap_bytes() == GapCost::kDefaultBytes);
}

TEST_CASE("what a request costs, in bytes of the link that it is on") {
  std::mt19937_64 random(1);
  for (const Link& link : {Link{}, Link{0.0002, 1e9}, Link{0.01, 50e6}, Link{0.0005, 3e9}}) {
    GapCost cost;
    note_any(cost, link, random, 60);
    CHECK(is_about(cost.gap_bytes(), link.gap_bytes(), 0.15));
  }
  Link noisy{.noise = 0.2};
  GapCost cost;
  note_any(cost, noisy, random, 500);
  CHECK(is_about(cost.gap_bytes(), noisy.gap_bytes(), 0.6));
}

TEST_CASE("requests that wait for a busy link do not seem to cost what they wait") {
  std::mt19937_64 random(4);
  const Link shared{0.001, 75e6};  // a quarter of 300 MB/s
  GapCost cost;
  for (int i = 0; i < 200; ++i) {
    const std::uint64_t bytes = any_size(random);
    const nanoseconds queued(random() % 10'000'000);
    cost.note(bytes, shared.duration(bytes, random) + queued);
  }
  // On average they take 6 ms besides their bytes.
  CHECK(static_cast<double>(cost.gap_bytes()) < 0.8 * 0.006 * shared.bytes_per_s);
}

TEST_CASE("a few reads change little, whatever they seem to tell") {
  GapCost cost;
  cost.note(512, milliseconds(20));  // it has opened the file
  cost.note(2048, nanoseconds(1000));
  cost.note(128 * kKiB, milliseconds(1));
  cost.note(128 * kKiB, milliseconds(1));
  CHECK(cost.gap_bytes() > GapCost::kDefaultBytes / 2);
  CHECK(cost.gap_bytes() < GapCost::kDefaultBytes * 2);
}

TEST_CASE("it follows a link that changes, and a read that stalls does not mislead it for long") {
  std::mt19937_64 random(2);
  GapCost cost;
  note_any(cost, {0.001, 300e6}, random, 100);
  note_any(cost, {0.004, 300e6}, random, 400);
  CHECK(is_about(cost.gap_bytes(), 1.2e6, 0.15));
  cost.note(4 * kMiB, seconds(100));
  note_any(cost, {0.004, 300e6}, random, 400);
  CHECK(is_about(cost.gap_bytes(), 1.2e6, 0.15));
}

TEST_CASE("never less than a page, never more than a piece") {
  std::mt19937_64 random(3);
  GapCost near;
  note_any(near, {1e-9, 1e9}, random, 50);
  CHECK(near.gap_bytes() < GapCost::kDefaultBytes / 8);
  GapCost odd;  // larger reads that are slower than their bytes
  for (std::uint64_t i = 1; i < 50; ++i) odd.note(i * kMiB / 8, milliseconds(i * i));
  CHECK(odd.gap_bytes() == GapCost::kLeastBytes);
  GapCost far;
  note_any(far, {2, 1e9}, random, 50);
  CHECK(far.gap_bytes() == GapCost::kMostBytes);
  // Larger reads that are faster: bytes seem to cost nothing.
  GapCost faster;
  for (std::uint64_t i = 1; i < 50; ++i) faster.note(i * kMiB, milliseconds(100 - i));
  CHECK(faster.gap_bytes() == GapCost::kMostBytes);
}

TEST_SUITE_END();
