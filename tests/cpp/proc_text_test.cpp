// proc_text: lines, words and numbers as the kernel writes them.
#include "base/proc_text.h"

#include <doctest/doctest.h>

#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("proc_text");

TEST_CASE("a text is read whole, or it is not there") {
  const TemporaryFolder folder;
  CHECK(file_text(folder.write("file", 10))->size() == 10);
  CHECK(file_text(folder.path("missing")) == std::nullopt);
  CHECK(file_text("/proc/self/mountinfo")->size() > 0);
}

TEST_CASE("empty parts are kept") {
  CHECK(split("a,,b", ',') == std::vector<std::string_view>{"a", "", "b"});
  CHECK(split("", ',') == std::vector<std::string_view>{""});
  CHECK(split("a\n", '\n') == std::vector<std::string_view>{"a", ""});
}

TEST_CASE("a number at the beginning, or nothing but a number") {
  CHECK(leading_number("128\n") == 128);
  CHECK(leading_number("12 kB") == 12);
  CHECK(parse_count("18446744073709551615") == 18446744073709551615ULL);
  for (const char* text : {"", "x1", "-1", "+1", " 1", "18446744073709551616"}) {
    CAPTURE(text);
    CHECK(leading_number(text) == std::nullopt);
    CHECK(parse_count(text) == std::nullopt);
  }
  CHECK(parse_count("128\n") == std::nullopt);
}

TEST_CASE("a value is found by its whole key") {
  CHECK(value_of("inactive_file_x 1\ninactive_file 2\n", "inactive_file") == 2);
  CHECK(value_of("total_inactive_file 3\n", "inactive_file") == std::nullopt);
  CHECK(value_of("MemTotal:  8000000 kB\nMemFree:   4000000 kB\n", "MemFree") == 4000000 * kKiB);
  CHECK(value_of("MemFree:\n", "MemFree") == std::nullopt);
  CHECK(value_of("", "MemFree") == std::nullopt);
}

TEST_SUITE_END();
