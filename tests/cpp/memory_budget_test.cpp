// memory_budget: the parsers and the sums, and a tree of files as the kernel would show it.
#include "node/memory_budget.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("memory_budget");

namespace {

constexpr const char* kMeminfo =
    "MemTotal:       24684084 kB\nMemFree:        4000000 kB\nMemAvailable:   20000000 kB\n"
    "Buffers:           39688 kB\n";

void write(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path) << text;
}

void write_group(const std::string& folder, const std::string& most, const std::string& high,
                 std::uint64_t used_bytes, std::uint64_t file_bytes) {
  write(folder + "/memory.max", most + "\n");
  write(folder + "/memory.high", high + "\n");
  write(folder + "/memory.current", std::to_string(used_bytes) + "\n");
  write(folder + "/memory.stat", "anon 4096\nfile 123\nactive_file " + std::to_string(file_bytes) +
                                     "\ninactive_file 0\nfile_dirty 0\n");
}

}  // namespace

TEST_CASE("free is what the limit leaves, page cache that can be dropped counted as free") {
  CHECK(MemoryLimit{"", 100, 90, 80}.free_bytes() == 90);
  CHECK(MemoryLimit{"", 100, 0, 0}.free_bytes() == 100);
  // The figures are read one after the other, so that one may have overtaken another.
  CHECK(MemoryLimit{"", 100, 50, 80}.free_bytes() == 100);
  CHECK(MemoryLimit{"", 100, 150, 10}.free_bytes() == 0);
}

TEST_CASE("the reserve is an eighth, at least 256 MiB, at most half") {
  CHECK(memory_reserve(0) == 0);
  CHECK(memory_reserve(256 * kMiB) == 128 * kMiB);
  CHECK(memory_reserve(kGiB) == 256 * kMiB);
  CHECK(memory_reserve(80 * kGiB) == 10 * kGiB);
}

TEST_CASE("a limit is a number, or there is none") {
  CHECK(parse_limit("1073741824\n") == kGiB);
  CHECK(parse_limit("0\n") == 0);
  for (const char* text : {"max\n", "9223372036854771712\n", "18446744073709551615\n",
                           "99999999999999999999999\n", "", "-1\n", "nonsense"}) {
    CAPTURE(text);
    CHECK(parse_limit(text) == std::nullopt);
  }
}

TEST_CASE("dirty pages and pages under writeback cannot be dropped") {
  CHECK(droppable_bytes("active_file 10\ninactive_file 5\nfile_dirty 2\nfile_writeback 1\n", 2) ==
        12);
  CHECK(droppable_bytes("inactive_file 5\nfile_dirty 9\n", 2) == 0);
  CHECK(droppable_bytes("active_file 1\ntotal_active_file 10\ntotal_inactive_file 5\n", 1) == 15);
}

TEST_CASE("the group of each hierarchy that limits memory") {
  const std::string mountinfo =
      "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
      "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
      "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:7 - cgroup cgroup rw,memory\n"
      "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
  CHECK(memory_cgroups("4:memory:/a/b:c\n3:cpu:/x\n0::/\n", mountinfo) ==
        std::vector<MemoryCgroup>{{1, "/sys/fs/cgroup/memory", "/a/b:c"},
                                  {2, "/sys/fs/cgroup/unified", ""}});
  CHECK(memory_cgroups("3:cpu:/x\n", mountinfo).empty());
  CHECK(memory_cgroups("", "").empty());
  CHECK(memory_cgroups("0::/a\n", "1 2 3\nnonsense - cgroup2\n").empty());
}

TEST_CASE("in a container the group may be the mount's root, or lie outside of it") {
  const auto seen = [](const std::string& path, const std::string& root) {
    return memory_cgroups("0::" + path + "\n",
                          "35 31 0:32 " + root + " /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
        .at(0)
        .path;
  };
  CHECK(seen("/docker/1", "/docker/1").empty());
  CHECK(seen("/docker/1/x", "/docker/1") == "/x");
  CHECK(seen("/docker/12", "/docker/1").empty());
  CHECK(seen("/../other", "/").empty());
  CHECK(seen("/", "/").empty());
  CHECK(seen("/with space", "/with\\040space").empty());
}

TEST_CASE("version 2: the tightest of all groups above, and memory.high as well as memory.max") {
  const TemporaryFolder folder;
  const std::string root = folder.path("root");
  write(root + "/proc/meminfo", kMeminfo);
  write(root + "/proc/self/cgroup", "0::/pod/box\n");
  write(root + "/proc/self/mountinfo", "35 31 0:32 / /cg rw - cgroup2 cgroup2 rw\n");
  write_group(root + "/cg/pod/box", "max", "max", kGiB, 0);
  write_group(root + "/cg/pod", std::to_string(8 * kGiB), std::to_string(6 * kGiB), 5 * kGiB,
              3 * kGiB);
  const MemoryBudget budget = memory_budget(root);
  REQUIRE(budget.limits.size() == 2);
  CHECK(budget.limits[budget.tightest].source == "/cg/pod");
  CHECK(budget.limits[budget.tightest].limit_bytes == 6 * kGiB);
  CHECK(budget.limits[budget.tightest].free_bytes() == 4 * kGiB);
  CHECK(budget.reserve_bytes == 512 * kMiB);
  CHECK(budget.budget_bytes == 4 * kGiB - 512 * kMiB);
  CHECK(budget.limits.back().free_bytes() == 20000000 * kKiB);
}

TEST_CASE("version 1: the groups above count, too") {
  const TemporaryFolder folder;
  const std::string root = folder.path("root");
  write(root + "/proc/meminfo", kMeminfo);
  write(root + "/proc/self/cgroup", "4:memory:/job/step\n");
  write(root + "/proc/self/mountinfo", "35 31 0:32 / /cg rw - cgroup cgroup rw,memory\n");
  write(root + "/cg/job/step/memory.limit_in_bytes", "9223372036854771712\n");
  write(root + "/cg/job/step/memory.usage_in_bytes", "1\n");
  write(root + "/cg/job/memory.limit_in_bytes", std::to_string(2 * kGiB) + "\n");
  write(root + "/cg/job/memory.usage_in_bytes", std::to_string(2 * kGiB) + "\n");
  write(root + "/cg/job/memory.stat", "total_inactive_file " + std::to_string(kGiB) + "\n");
  const MemoryBudget budget = memory_budget(root);
  CHECK(budget.limits[budget.tightest].source == "/cg/job");
  CHECK(budget.budget_bytes == kGiB - 256 * kMiB);
}

TEST_CASE("what cannot be read is no limit") {
  const TemporaryFolder folder;
  CHECK(memory_budget(folder.path("root")).budget_bytes == std::nullopt);
  CHECK(memory_budget(folder.path("root")).limits.empty());
}

TEST_CASE("of this machine") {
  const MemoryBudget budget = memory_budget();
  REQUIRE(budget.budget_bytes);
  CHECK(*budget.budget_bytes > 0);
  CHECK(budget.limits.back().source == "/proc/meminfo");
}

TEST_SUITE_END();
