// mounts: the kernel's table of mounts, with names that need escapes.
#include "mounts.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>

#include "file_io.h"
#include "node.h"

using namespace shardahead;
using namespace shardahead::bench;

TEST_SUITE_BEGIN("bench_mounts");

TEST_CASE("octal escapes are decoded, and nothing else") {
  CHECK(decode_octal("/a\\040b\\011c\\012d\\134e\\043f") == "/a b\tc\nd\\e#f");
  CHECK(decode_octal("\\04") == "\\04");
  CHECK(decode_octal("\\048") == "\\048");
  CHECK(decode_octal("\\400") == "\\400");
  CHECK(decode_octal("\\") == "\\");
}

TEST_CASE("a line of mountinfo") {
  const auto mounts = parse_mountinfo(
      "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n"
      "36 35 0:45 /sub /mnt/my\\040models ro,noatime master:1 propagate_from:2 - nfs4 "
      "filer:/a\\040b ro,vers=4.2,rsize=1048576\n"
      "37 35 0:46 / /mnt/empty rw - tmpfs  rw,size=1k\n");
  REQUIRE(mounts.size() == 3);
  CHECK(mounts[0].id == 27);
  CHECK(mounts[0].device == DeviceNumber{254, 0});
  CHECK(mounts[0].type == "ext4");
  CHECK(mounts[0].options == "rw,relatime,discard");
  CHECK(mounts[1].mount_point == "/mnt/my models");
  CHECK(mounts[1].root == "/sub");
  CHECK(mounts[1].source == "filer:/a b");
  CHECK(mounts[1].options == "ro,noatime,vers=4.2,rsize=1048576");
  CHECK(mounts[2].type == "tmpfs");
  CHECK(mounts[2].source.empty());
}

TEST_CASE("lines of another form are left out") {
  for (const char* line :
       {"", "\n\n", "x 1 254:0 / / rw - ext4 /dev/vda rw", "27 1 254 / / rw - ext4 /dev/vda rw",
        "27 1 254:0 / / rw shared:1 ext4 /dev/vda rw", "27 1 254:0 / / rw - ext4"}) {
    CAPTURE(line);
    CHECK(parse_mountinfo(line).empty());
  }
}

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
