// link_schedule_test: the queueing of the link, checked in virtual time; also of one that several
// threads or processes share. No clock, no mount.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "link_schedule.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "shared_link.h"

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

TEST_CASE("schedules of one link queue behind each other, each with a round trip of its own") {
  FreeFrom free_from{0};
  LinkSchedule near(100 * kMegabyte, milliseconds(2), Nanoseconds{0}, &free_from);
  LinkSchedule far(100 * kMegabyte, milliseconds(15), Nanoseconds{0}, &free_from);
  CHECK(near.admit(kStart, kMegabyte) == kStart + milliseconds(12));
  CHECK(far.admit(kStart, kMegabyte) == kStart + milliseconds(25));
  CHECK(near.admit(kStart, kMegabyte) == kStart + milliseconds(35));
}

TEST_CASE("nothing of a shared link is lost or given twice, whoever is at it at the same time") {
  constexpr int kThreads = 4;
  constexpr int kEach = 20'000;
  FreeFrom free_from{0};
  std::array<std::vector<Instant>, kThreads> ends;
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (auto& mine : ends) {
    threads.emplace_back([&mine, &free_from] {
      LinkSchedule link(1000 * kMegabyte, milliseconds(2), Nanoseconds{0}, &free_from);
      for (int i = 0; i < kEach; ++i) mine.push_back(link.admit(kStart, 1000));
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<Instant> all;
  for (const auto& mine : ends) all.insert(all.end(), mine.begin(), mine.end());
  std::sort(all.begin(), all.end());
  for (std::size_t i = 0; i < all.size(); ++i) {
    REQUIRE(all[i] == kStart + milliseconds(2) + std::chrono::microseconds(i + 1));
  }
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "slowfs-link-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] std::string file() const { return path_ / "link"; }

 private:
  std::filesystem::path path_;
};

TEST_CASE("a file is one link for all who name it, and goes on when one of them is killed") {
  const TemporaryFolder folder;
  const SharedLink here(folder.file());
  LinkSchedule link(100 * kMegabyte, milliseconds(2), Nanoseconds{0}, &here.free_from());
  const pid_t child = fork();
  if (child == 0) {
    const SharedLink there(folder.file());
    LinkSchedule other(100 * kMegabyte, milliseconds(2), Nanoseconds{0}, &there.free_from());
    while (true) static_cast<void>(other.admit(kStart, kMegabyte));
  }
  REQUIRE(child > 0);
  while (here.free_from().load() < kStart.time_since_epoch().count()) std::this_thread::yield();
  kill(child, SIGKILL);
  REQUIRE(waitpid(child, nullptr, 0) == child);
  // What it was promised stays taken, to the nanosecond.
  const Instant taken{Nanoseconds{here.free_from().load()}};
  CHECK((taken - kStart - milliseconds(2)) % milliseconds(10) == Nanoseconds{0});
  CHECK(link.admit(kStart, kMegabyte) == taken + milliseconds(10));
}

TEST_CASE("a link that cannot be kept there is an error that names the file") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH_AS(SharedLink(folder.file() + "/not/there"),
                       doctest::Contains("/link/not/there"), std::system_error);
}

}  // namespace
}  // namespace slowfs
