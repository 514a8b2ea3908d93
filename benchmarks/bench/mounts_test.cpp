// mounts: real files on a real mount. What the kernel's table says is tested in tests/cpp.
#include "mounts.h"

#include <doctest/doctest.h>

#include <filesystem>

#include "node.h"
#include "node/file_io.h"

using namespace shardahead;
using namespace shardahead::bench;

TEST_SUITE_BEGIN("bench_mounts");

TEST_CASE("the mount of a real file, asked by its id") {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe").string();
  Workload workload;
  workload.files = {{program, 10, 10}, {program, 20, 20}};
  const auto mounts = mounts_of(workload);
  REQUIRE(mounts.size() == 1);
  CHECK(mounts[0].files == 2);
  CHECK(mounts[0].measured_bytes == 30);
  CHECK_FALSE(mounts[0].mount.type.empty());
  CHECK(program.starts_with(mounts[0].mount.mount_point));
}

TEST_CASE("a file that is gone counts to a mount without a type") {
  Workload workload;
  workload.files = {{"/no/such/file", 10, 10}};
  const auto mounts = mounts_of(workload);
  REQUIRE(mounts.size() == 1);
  CHECK(mounts[0].mount.type.empty());
  CHECK_FALSE(mounts[0].read_ahead_kib());
}

TEST_CASE("readahead is told in KiB, as sysfs has it") {
  MountUsed used;
  used.mount.read_ahead_bytes = 128 * kKiB;
  CHECK(used.read_ahead_kib() == 128);
}

TEST_CASE("the node") {
  const Node node = this_node();
  CHECK(node.kernel.starts_with("Linux "));
  CHECK(node.cpus >= 1);
  CHECK(node.usable_cpus >= 1);
  CHECK(node.memory_bytes > 0);
  CHECK_FALSE(node.cpu_model.empty());
  CHECK(value_of("a : 1\nmodel name\t: Some CPU @ 2: fast\n", "model name") ==
        "Some CPU @ 2: fast");
  CHECK(value_of("a : 1", "b").empty());
}
