// units: what people write as sizes, and what is safe to print.
#include "units.h"

#include <doctest/doctest.h>

#include <limits>

using namespace shardahead::bench;

TEST_SUITE_BEGIN("bench_units");

TEST_CASE("sizes with and without units, as the Python side takes them") {
  CHECK(parse_bytes("0") == 0);
  CHECK(parse_bytes("16777216") == 16777216);
  CHECK(parse_bytes("16MiB") == 16777216);
  CHECK(parse_bytes(" 16 m ") == 16777216);
  CHECK(parse_bytes("16MB") == 16'000'000);
  CHECK(parse_bytes("4k") == 4096);
  CHECK(parse_bytes("1.5GiB") == 1610612736);
  CHECK(parse_bytes("1.50 kb") == 1500);
  CHECK(parse_bytes("0.0009765625kib") == 1);
  CHECK(parse_bytes("2TB") == 2'000'000'000'000);
  CHECK(parse_bytes("18446744073709551615") == std::numeric_limits<std::uint64_t>::max());
}

TEST_CASE("what is no whole number of bytes is refused") {
  for (const char* text :
       {"", " ", "MiB", "-1", "+1", "1e3", "16 potatoes", "1.5", "0.3KiB", "1.", ".5M", "1.2.3M",
        "0x10", "16MiB 2", "18446744073709551616", "16777216TiB", "0.1234567890123456789TiB"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_bytes(text));
  }
}

TEST_CASE("sizes to read and sizes to give back") {
  CHECK(format_bytes(0) == "0 B");
  CHECK(format_bytes(1023) == "1023 B");
  CHECK(format_bytes(1536) == "1.50 KiB");
  CHECK(format_bytes(2ULL << 30U) == "2.00 GiB");
  CHECK(format_bytes(100ULL << 20U) == "100 MiB");
  CHECK(format_bytes(3ULL << 40U) == "3.00 TiB");
  for (const std::uint64_t count : {0ULL, 1ULL, 4097ULL, 4096ULL, 16ULL << 20U, 3ULL << 30U}) {
    CHECK(parse_bytes(exact_bytes(count)) == count);
  }
  CHECK(exact_bytes(16ULL << 20U) == "16MiB");
}

TEST_CASE("rates, as the Python side writes them") {
  CHECK(format_rate(0) == "0 MB/s");
  CHECK(format_rate(34'000) == "0.03 MB/s");
  CHECK(format_rate(450'000) == "0.45 MB/s");
  CHECK(format_rate(996'000) == "1.0 MB/s");
  CHECK(format_rate(5'200'000) == "5.2 MB/s");
  CHECK(format_rate(9'949'000) == "9.9 MB/s");
  CHECK(format_rate(9'960'000) == "10 MB/s");
  CHECK(format_rate(309'400'000) == "309 MB/s");
  CHECK(format_rate(999'600'000) == "1,000 MB/s");
  CHECK(format_rate(1'250'000'000) == "1,250 MB/s");
  CHECK(rate_number(211'799'000'000) == "211,799");
  CHECK(rate_number(1'234'567'000'000) == "1,234,567");
}

TEST_CASE("a name cannot drive the terminal, nor the shell") {
  CHECK(printable("a\n\x1b[31m\x7f") == "a\\x0a\\x1b[31m\\x7f");
  CHECK(printable("gr\xc3\xbc\xc3\x9f") == "gr\xc3\xbc\xc3\x9f");
  CHECK(shell_quoted("/models/m-1") == "/models/m-1");
  CHECK(shell_quoted("it's $HOME") == "'it'\\''s $HOME'");
  CHECK(shell_quoted("").size() == 2);
  CHECK(quoted_name("/models/a\nb") == "'/models/a\\x0ab'");
  CHECK(quoted_name("it's") == "\"it's\"");
}

TEST_CASE("lists and counts") {
  CHECK(joined({"a", "b"}, ", ") == "a, b");
  CHECK(counted(1, "thread") == "1 thread");
  CHECK(counted(0, "thread") == "0 threads");
  CHECK(format_fixed(1.005, 1) == "1.0");
}
