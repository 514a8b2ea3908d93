// json_scan: never fewer values than a parser would make, and no limit reached by mere text.
#include "base/json_scan.h"

#include <doctest/doctest.h>

#include <string>

using namespace shardahead;

TEST_SUITE_BEGIN("json_scan");

namespace {

bool extent_is(std::string_view text, std::size_t values, std::size_t objects, std::size_t depth) {
  const JsonExtent found = scan_json(text);
  return found.values == values && found.objects == objects && found.depth == depth;
}

}  // namespace

TEST_CASE("values, objects and depth") {
  CHECK(extent_is("", 1, 0, 0));
  CHECK(extent_is("12", 1, 0, 0));
  CHECK(extent_is("{}", 2, 1, 1));
  CHECK(extent_is(R"({"a":{"dtype":"U8","shape":[2,3],"data_offsets":[0,6]},"b":{}})", 11, 3, 3));
  CHECK(extent_is("[[[[]]],[]]", 7, 0, 4));
}

TEST_CASE("what stands in a string does not count") {
  CHECK(extent_is(R"("{[,{[,")", 1, 0, 0));
  CHECK(extent_is(R"({"\"{{":"\\","]":[]})", 4, 1, 2));
  CHECK(extent_is(R"("\)", 1, 0, 0));
  CHECK(extent_is("\"{", 1, 0, 0));
}

TEST_CASE("what is no JSON is counted all the same") {
  CHECK(extent_is("}}]]{", 2, 1, 1));
  CHECK(scan_json(std::string(100'000, '[')).depth == 100'000);
  CHECK(scan_json(std::string("\0\xff,", 3)).values == 2);
}

TEST_SUITE_END();
