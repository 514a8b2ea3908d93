// control_test: the grammar of commands and what faults do to byte ranges. No mount.
#include "control.h"

#include <doctest/doctest.h>

#include "faults.h"

namespace slowfs {
namespace {

// Throws, and so fails the test, where the line is no command or another one.
template <typename Expected>
Expected parse_as(const char* line) {
  return std::get<Expected>(parse_command(line).value());
}

std::size_t n_commands(const char* text) { return parse_commands(text).value().size(); }

TEST_CASE("commands") {
  CHECK(parse_as<AddEio>("eio a/b c.safetensors 4096").path == "a/b c.safetensors");
  CHECK(parse_as<AddEio>("eio a/b c.safetensors 4096").offset == 4096);
  CHECK(parse_as<AddBad>("bad a b 8192 4096").path == "a b");
  CHECK(parse_as<AddBad>("bad a b 8192 4096").offset == 8192);
  CHECK(parse_as<AddBad>("bad a b 8192 4096").bytes == 4096);
  CHECK(parse_as<AddStall>("  stall x 7 1.5\r").path == "x");
  CHECK(parse_as<AddStall>("  stall x 7 1.5\r").offset == 7);
  CHECK(parse_as<AddStall>("  stall x 7 1.5\r").delay == std::chrono::milliseconds(1500));
  CHECK(parse_as<AddTruncate>("truncate x 10").bytes == 10);
  CHECK(parse_as<SetRate>("rate 12.5").bytes_per_s == 12'500'000);
  CHECK(parse_as<SetRate>("rate 0").bytes_per_s == 0);
  CHECK(parse_as<SetRate>("rate 0.0000001").bytes_per_s == 1);
  CHECK(parse_as<SetRoundTrip>("round-trip-ms 0.5").round_trip == std::chrono::microseconds(500));
  CHECK(parse_as<SetClose>("close-ms 20").delay == std::chrono::milliseconds(20));
}

TEST_CASE("bad commands") {
  for (const char* line :
       {"eio",        "eio x",     "eio 5",         "eio x -1",
        "eio x 1k",   "bad x 1",   "bad 1 2",       "bad x 1 18446744073709551615",
        "stall x 1",  "stall 1 1", "stall x 1 -1",  "stall x 1 nan",
        "truncate x", "reset x",   "clear all",     "rate",
        "rate fast",  "rate -1",   "round-trip-ms", "stop"}) {
    CAPTURE(line);
    CHECK_FALSE(parse_command(line));
  }
}

TEST_CASE("one command per line, all good or none") {
  CHECK(n_commands("") == 0);
  CHECK(n_commands("reset") == 1);
  CHECK(n_commands("reset\n\nclear\n") == 2);
  CHECK_FALSE(parse_commands("reset\nclear\nnonsense\n"));
}

TEST_CASE("faults begin at their offset") {
  FaultTable table;
  table.of("x").eio_offset = 100;
  table.of("z").bad = ByteSpan{100, 200};
  table.of("x").stall = Stall{200, std::chrono::seconds(1)};
  table.of("x").truncated_bytes = 50;
  const FileFaults faults = table.find("x");
  CHECK_FALSE(faults.fails(0, 100));
  CHECK(faults.fails(0, 101));
  CHECK_FALSE(table.find("z").fails(0, 100));
  CHECK(table.find("z").fails(0, 101));
  CHECK(table.find("z").fails(199, 300));
  CHECK_FALSE(table.find("z").fails(200, 300));
  CHECK(faults.delay(200) == Nanoseconds{0});
  CHECK(faults.delay(201) == std::chrono::seconds(1));
  CHECK(faults.size_seen(1000) == 50);
  CHECK(faults.size_seen(10) == 10);
  CHECK(table.find("y").size_seen(1000) == 1000);
  CHECK_FALSE(table.knows("y"));
  table.clear();
  CHECK(table.find("x").size_seen(1000) == 1000);
  CHECK_FALSE(table.find("x").fails(0, 101));
  CHECK(table.knows("x"));
}

}  // namespace
}  // namespace slowfs
