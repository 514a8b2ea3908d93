// link_schedule_test: the queueing of the link, checked in virtual time. No clock, no mount.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "link_schedule.h"

#include <doctest/doctest.h>

namespace slowfs {
namespace {

using std::chrono::milliseconds;

constexpr Instant kStart{Nanoseconds{1'000'000'000}};
constexpr std::uint64_t kMegabyte = 1'000'000;

TEST_CASE("an idle link: round trip, then transfer") {
  LinkSchedule link(100 * kMegabyte, milliseconds(2));
  CHECK(link.admit(kStart, kMegabyte) == kStart + milliseconds(12));
  // Long after the first: nothing of it is left.
  const Instant later = kStart + milliseconds(500);
  CHECK(link.admit(later, kMegabyte) == later + milliseconds(12));
}

TEST_CASE("a deep queue pays one round trip and then runs at the rate") {
  LinkSchedule link(100 * kMegabyte, milliseconds(2));
  Instant last = kStart;
  for (int i = 1; i <= 50; ++i) {
    last = link.admit(kStart, kMegabyte);
    CHECK(last == kStart + milliseconds(2 + 10 * i));
  }
  // A request that arrives while the link is busy has had its round trip when it is free.
  CHECK(link.admit(last - milliseconds(2), kMegabyte) == last + milliseconds(10));
  CHECK(link.admit(last, 0) == last + milliseconds(10));
}

TEST_CASE("a request that does not begin where the last one ended costs a seek") {
  LinkSchedule link(100 * kMegabyte, milliseconds(0), milliseconds(8));
  CHECK(link.admit(kStart, kMegabyte, {1, 0}) == kStart + milliseconds(18));
  CHECK(link.admit(kStart, kMegabyte, {1, kMegabyte}) == kStart + milliseconds(28));
  CHECK(link.admit(kStart, kMegabyte, {1, 3 * kMegabyte}) == kStart + milliseconds(46));
  CHECK(link.admit(kStart, kMegabyte, {2, 4 * kMegabyte}) == kStart + milliseconds(64));
}

TEST_CASE("one request at a time pays the round trip each time") {
  LinkSchedule link(100 * kMegabyte, milliseconds(2));
  Instant at = kStart;
  for (int i = 0; i < 10; ++i) at = link.admit(at, kMegabyte);
  CHECK(at == kStart + milliseconds(120));
}

TEST_CASE("fractions of a nanosecond do not get lost") {
  // 4096 bytes at 3 * 10^9 bytes/s take 1365.33 ns.
  LinkSchedule link(3'000 * kMegabyte, Nanoseconds{0});
  Instant last = kStart;
  for (int i = 0; i < 3'000'000; ++i) last = link.admit(kStart, 4096);
  CHECK(last - kStart == Nanoseconds{4'096'000'000});
}

TEST_CASE("a rate of 0 is a link that takes no time") {
  LinkSchedule link(0, milliseconds(2));
  for (int i = 0; i < 5; ++i) {
    CHECK(link.admit(kStart, 1000 * kMegabyte) == kStart + milliseconds(2));
  }
}

TEST_CASE("changes hold for what comes after them") {
  LinkSchedule link(100 * kMegabyte, milliseconds(2));
  CHECK(link.admit(kStart, kMegabyte) == kStart + milliseconds(12));
  link.set_rate(10 * kMegabyte);
  CHECK(link.admit(kStart, kMegabyte) == kStart + milliseconds(112));
  link.set_round_trip(milliseconds(200));
  CHECK(link.admit(kStart, kMegabyte) == kStart + milliseconds(300));
  CHECK(link.bytes_per_s() == 10 * kMegabyte);
  CHECK(link.round_trip() == milliseconds(200));
}

}  // namespace
}  // namespace slowfs
