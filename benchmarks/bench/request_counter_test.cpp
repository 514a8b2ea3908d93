// request_counter: the texts in which kernel and slowfs count, as they write them.
#include "request_counter.h"

#include <doctest/doctest.h>

using namespace shardahead;
using namespace shardahead::bench;

TEST_SUITE_BEGIN("bench_request_counter");

namespace {

constexpr const char* kMountstats =
    "device proc mounted on /proc with fstype proc\n"
    "device filer:/a mounted on /mnt/my\\040models with fstype nfs4 statvers=1.1\n"
    "\topts:\trw,vers=4.2\n"
    "\tbytes:\t1 2 3 4 5 6 7 8\n"
    "\tper-op statistics\n"
    "\t        NULL: 1 1 0 44 24 0 0 0 0\n"
    "\t        READ: 10 11 0 1520 10487480 0 12 13 0\n"
    "\t       WRITE: 3 3 0 100 200 0 1 1 0\n"
    "device filer:/b mounted on /mnt/other with fstype nfs statvers=1.1\n"
    "\t        READ: 20 20 0 3040 999 0 12 13 0\n"
    "device none mounted on /mnt/hidden with fstype nfs statvers=1.1\n"
    "\t        READ: 1 1 0 1 1 0 1 1 0\n"
    "device none mounted on /mnt/hidden with fstype tmpfs\n";

}  // namespace

TEST_CASE("NFS: READs of the mount at this point and no other") {
  CHECK(parse_mountstats(kMountstats, "/mnt/my models") == Requests{10, 10487480});
  CHECK(parse_mountstats(kMountstats, "/mnt/other") == Requests{20, 999});
  CHECK_FALSE(parse_mountstats(kMountstats, "/mnt"));
  CHECK_FALSE(parse_mountstats(kMountstats, "/proc"));
  CHECK_FALSE(parse_mountstats(kMountstats, "/mnt/hidden"));
  CHECK_FALSE(parse_mountstats("", "/"));
}

TEST_CASE("a block device counts in sectors of 512 bytes") {
  CHECK(parse_block_stat(" 1239171   123305 1000  2542946    83076   375116 0 0 0 0 0\n") ==
        Requests{1239171, 512'000});
  CHECK_FALSE(parse_block_stat(""));
  CHECK_FALSE(parse_block_stat("1 2 three 4"));
}

TEST_CASE("slowfs") {
  CHECK(parse_slowfs_counters(R"({"bytes_served": 4096, "requests": 2, "in_flight": 0})") ==
        Requests{2, 4096});
  for (const char* text : {"", "{}", "[]", "{", R"({"bytes_served": -1, "requests": 2})",
                           R"({"bytes_served": "4096", "requests": 2})"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_slowfs_counters(text));
  }
}

TEST_CASE("what was counted between two readings") {
  CHECK(difference({1, 10}, {3, 50}) == Requests{2, 40});
  CHECK_FALSE(difference({3, 50}, {1, 60}));
  using Reading = RequestCounters::Reading;
  CHECK(RequestCounters::between(Reading{{1, 10}, {0, 0}}, Reading{{3, 50}, {1, 1}}) ==
        Requests{3, 41});
  CHECK_FALSE(RequestCounters::between(Reading{}, Reading{}));
  CHECK_FALSE(RequestCounters::between(std::nullopt, Reading{{1, 1}}));
  CHECK_FALSE(RequestCounters::between(Reading{{1, 1}}, Reading{{0, 1}}));
}

TEST_CASE("a mount that no one counts for makes all of them unknown") {
  Mount memory;
  memory.type = "tmpfs";
  memory.mount_point = "/nowhere";
  CHECK(RequestCounter(memory).kind() == CounterKind::none);
  CHECK_FALSE(RequestCounters({MountUsed{memory, 1, 1}}).read());
  Mount filer;
  filer.type = "nfs4";
  filer.mount_point = "/nowhere";
  CHECK(RequestCounter(filer).kind() == CounterKind::nfs);
  CHECK_FALSE(RequestCounter(filer).read());
}
