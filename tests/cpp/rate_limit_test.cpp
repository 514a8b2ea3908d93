// rate_limit: when the next bytes may be read, by told times.
#include "plan/rate_limit.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "base/byte_range.h"

using namespace shardahead;
using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

TEST_SUITE_BEGIN("rate_limit");

namespace {

constexpr std::uint64_t kPieceBytes = 4 * kMiB;
constexpr std::uint64_t kRate = 100 * kMiB;
constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();

// One who reads pieces, on a clock that the test moves.
struct Reader {
  explicit Reader(std::uint64_t rate = kRate, std::uint64_t piece_bytes = kPieceBytes)
      : limit(rate, piece_bytes), piece(piece_bytes) {}

  // Whether a piece may be read now; then it has been.
  bool reads() {
    if (limit.pause(account, piece, now) > nanoseconds(0)) return false;
    account = limit.paid(account, piece, now);
    read_bytes += piece;
    return true;
  }
  void pass(nanoseconds time) {
    now += std::chrono::duration_cast<RateLimit::Time::duration>(time);
  }
  // Waits as long as it is told, and `later` as threads do.
  void read_for(nanoseconds duration, nanoseconds later = nanoseconds(0)) {
    for (const auto end = now + duration; now < end;) {
      if (!reads()) pass(limit.pause(account, piece, now) + later);
    }
  }
  [[nodiscard]] double seconds_since(RateLimit::Time began) const {
    return std::chrono::duration<double>(now - began).count();
  }

  RateLimit limit;
  std::uint64_t piece;
  RateLimit::Time now{hours(1000)};
  RateLimit::PaidUntil account = 0;
  std::uint64_t read_bytes = 0;
};

}  // namespace

TEST_CASE("without a limit no one waits") {
  const RateLimit none(0, kPieceBytes);
  CHECK_FALSE(none.limits());
  CHECK(none.pause(kMost, kMost, RateLimit::Time(seconds(1))) == nanoseconds(0));
}

TEST_CASE("a burst may be read at once, and no more") {
  Reader reader;
  while (reader.reads()) REQUIRE(reader.read_bytes <= kRate);
  CHECK(reader.read_bytes <= reader.limit.burst_bytes());
  CHECK(reader.read_bytes > reader.limit.burst_bytes() - kPieceBytes);
}

TEST_CASE("from then on it is what the rate allows, also where each wait ends a moment late") {
  for (const auto later :
       {nanoseconds(0), nanoseconds(microseconds(100)), nanoseconds(milliseconds(20))}) {
    Reader reader;
    const auto began = reader.now;
    reader.read_for(seconds(100), later);
    const double allowed = static_cast<double>(kRate) * reader.seconds_since(began);
    CHECK(static_cast<double>(reader.read_bytes) <=
          allowed + static_cast<double>(reader.limit.burst_bytes()));
    CHECK(static_cast<double>(reader.read_bytes) >= allowed - static_cast<double>(kPieceBytes));
  }
}

TEST_CASE("what was not read for an hour is not made up for: a burst is all") {
  Reader reader;
  reader.read_for(seconds(1));
  reader.pass(hours(1));
  reader.read_bytes = 0;
  while (reader.reads()) REQUIRE(reader.read_bytes <= kRate);
  CHECK(reader.read_bytes <= reader.limit.burst_bytes());
}

TEST_CASE(
    "in every stretch of time no more is read than the rate and a burst, whoever reads when") {
  std::mt19937_64 random(7);
  Reader reader;
  std::vector<std::pair<RateLimit::Time, std::uint64_t>> read;
  for (int i = 0; i < 2000; ++i) {
    if (reader.reads()) read.emplace_back(reader.now, reader.piece);
    if (random() % 3 == 0) reader.pass(milliseconds(random() % 200));
  }
  for (std::size_t begin = 0; begin < read.size(); begin += 17) {
    std::uint64_t bytes = 0;
    for (std::size_t i = begin; i < read.size(); ++i) {
      bytes += read[i].second;
      const double time = std::chrono::duration<double>(read[i].first - read[begin].first).count();
      const double most =
          static_cast<double>(reader.limit.burst_bytes()) + time * static_cast<double>(kRate);
      REQUIRE(static_cast<double>(bytes) <= most + 1);
    }
  }
}

TEST_CASE("of two with an account in common both are held by what both read") {
  Reader one;
  Reader other;
  const auto began = one.now;
  for (int i = 0; i < 100'000; ++i) {
    if (one.reads()) other.account = one.account;
    if (other.reads()) one.account = other.account;
    one.pass(milliseconds(1));
    other.now = one.now;
  }
  const double rate =
      static_cast<double>(one.read_bytes + other.read_bytes) / one.seconds_since(began);
  CHECK(rate == doctest::Approx(static_cast<double>(kRate)).epsilon(0.01));
}

TEST_CASE("what was paid for and not read is as if it had not been") {
  Reader reader;
  reader.read_for(seconds(1));
  const auto before = reader.account;
  reader.account = reader.limit.paid(before, kPieceBytes, reader.now);
  CHECK(reader.account > before);
  CHECK(reader.limit.paid_back(reader.account, kPieceBytes) == before);
  CHECK(reader.limit.paid_back(5, kPieceBytes) == 0);
}

TEST_CASE("what was read unasked is made up for, and forgotten where it would take long") {
  Reader reader;
  reader.account = reader.limit.charged(0, kRate, reader.now);
  CHECK_FALSE(reader.reads());
  reader.pass(seconds(1));
  CHECK(reader.reads());
  reader.account = reader.limit.charged(reader.account, 1000 * kRate, reader.now);
  reader.account = reader.limit.charged(reader.account, 1000 * kRate, reader.now);
  CHECK_FALSE(reader.reads());
  reader.pass(RateLimit::kMostDebt + seconds(1));
  CHECK(reader.reads());
}

TEST_CASE("an account that means nothing holds no one up") {
  for (const std::uint64_t garbage : {kMost, kMost / 2, std::uint64_t{1} << 62U}) {
    Reader reader;
    reader.account = garbage;
    CHECK(reader.reads());
    CHECK_FALSE(reader.account == garbage);
    reader.account = garbage;
    reader.account = reader.limit.charged(reader.account, kPieceBytes, reader.now);
    reader.pass(RateLimit::kMostDebt + seconds(1));
    CHECK(reader.reads());
  }
}

TEST_CASE("the slowest and the fastest rate, the largest piece") {
  Reader slow(1, kGiB);
  CHECK(slow.reads());
  CHECK_FALSE(slow.reads());
  CHECK(slow.limit.pause(slow.account, kGiB, slow.now) > hours(24 * 365));
  slow.pass(hours(24 * 365));
  CHECK_FALSE(slow.reads());
  slow.pass(hours(24 * 365 * 40));
  CHECK(slow.reads());
  Reader fast(kMost / 2, kGiB);
  for (int i = 0; i < 1000; ++i) CHECK(fast.reads());
  Reader larger_than_burst;
  CHECK(larger_than_burst.limit.pause(0, 100 * kRate, larger_than_burst.now) == nanoseconds(0));
}

TEST_SUITE_END();
