// proc_self: lines of maps and of fdinfo.
#include "node/proc_self.h"

#include <doctest/doctest.h>
#include <sys/sysmacros.h>

using namespace shardahead;

TEST_SUITE_BEGIN("proc_self");

TEST_CASE("a line of maps") {
  const auto line = parse_maps_line(
      "7f8c2d800000-7f8c2e801000 rw-p 00001000 fe:1f 2154558                    /tmp/a b\\012c");
  REQUIRE(line);
  CHECK(*line == MapsLine{.begin = 0x7f8c2d800000,
                          .end = 0x7f8c2e801000,
                          .offset = 0x1000,
                          .device = makedev(0xfe, 0x1f),
                          .inode = 2154558,
                          .readable = true,
                          .writable = true});
  const auto shared = parse_maps_line("00400000-00401000 r-xs 00000000 103:00002 7 /a (deleted)");
  REQUIRE(shared);
  CHECK(shared->shared);
  CHECK(shared->executable);
  CHECK_FALSE(shared->writable);
  CHECK(shared->device == makedev(0x103, 2));
  const auto anonymous = parse_maps_line("7ffd1000-7ffd2000 rw-p 00000000 00:00 0 ");
  REQUIRE(anonymous);
  CHECK(anonymous->inode == 0);
  CHECK(parse_maps_line("7ffd1000-7ffd2000 rw-p 00000000 00:00 0"));
  CHECK(parse_maps_line("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]"));
}

TEST_CASE("what is no line of maps") {
  for (const char* text :
       {"", "\n", "nonsense", "7ffd1000", "7ffd1000-", "7ffd1000-7ffd2000", "7ffd1000-7ffd2000 ",
        "7ffd2000-7ffd1000 rw-p 00000000 00:00 0", "7ffd1000-7ffd2000 rw-p",
        "7ffd1000-7ffd2000 rw-p ", "7ffd1000-7ffd2000 rw 00000000 00:00 0",
        "7ffd1000-7ffd2000 rw-p x 00:00 0", "7ffd1000-7ffd2000 rw-p 00000000 0000 0",
        "7ffd1000-7ffd2000 rw-p 00000000 00:00", "7ffd1000-7ffd2000 rw-p 00000000 00:00 ",
        "7ffd1000-7ffd2000 rw-p 00000000 00:00 12x", "g-h rw-p 00000000 00:00 0",
        "1ffffffffffffffff-2ffffffffffffffff rw-p 00000000 00:00 0"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_maps_line(text));
  }
}

TEST_CASE("the name in a line of maps, as the kernel writes it") {
  CHECK(maps_name("7f8c2d800000-7f8c2e801000 rw-p 00001000 fe:1f 2154 /tmp/a b\\012c") ==
        "/tmp/a b\\012c");
  CHECK(maps_name("7ffd1000-7ffd2000 rw-p 00000000 00:00 0 ").empty());
  CHECK(maps_name("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]").empty());
}

TEST_CASE("a file may have the inode number 0; what is no file has no device") {
  int files = 0;
  for_each_mapping("1000-2000 r--p 00000000 00:2a 0 /a\n2000-3000 rw-p 00000000 00:00 0\n",
                   [&](const MapsLine& line, std::string_view) {
                     ++files;
                     CHECK(line.begin == 0x1000);
                   });
  CHECK(files == 1);
}

TEST_CASE("the offset of a descriptor") {
  CHECK(parse_fdinfo_position("pos:\t4096\nflags:\t02100000\nmnt_id:\t28\nino:\t7\n") == 4096);
  CHECK(parse_fdinfo_position("flags:\t0\npos:\t0\n") == 0);
  for (const char* text : {"", "pos:\n", "pos:\t-1\n", "position:\t5\n", "flags:\t02\n"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_fdinfo_position(text));
  }
}

TEST_SUITE_END();
