// touched_bytes: grains that are marked, expected, and asked for.
#include "node/touched_bytes.h"

#include <doctest/doctest.h>

#include <stdexcept>

using namespace shardahead;

TEST_SUITE_BEGIN("touched_bytes");

namespace {

constexpr std::uint64_t kGrain = TouchedBytes::kGrainBytes;

}  // namespace

TEST_CASE("a byte is its grain, and the last one ends with the file") {
  TouchedBytes touched({10 * kGrain + 1, 0, kGrain});
  CHECK(touched.ranges(0).empty());
  touched.mark(0, {kGrain, 1});
  touched.mark(0, {3 * kGrain - 1, 2});
  touched.mark(0, {10 * kGrain, kNoEnd});
  CHECK(touched.ranges(0) == std::vector<ByteRange>{{kGrain, 3 * kGrain}, {10 * kGrain, 1}});
  CHECK(touched.bytes() == 3 * kGrain + 1);
  touched.mark(0, {kGrain, 2 * kGrain});
  CHECK(touched.bytes() == 3 * kGrain + 1);
}

TEST_CASE("what lies in no file is passed over") {
  TouchedBytes touched({kGrain, 0});
  touched.mark(0, {kGrain, 5});
  touched.mark(0, {0, 0});
  touched.mark(1, {0, 5});
  CHECK(touched.bytes() == 0);
  CHECK(touched.order().empty());
  CHECK_THROWS_AS(touched.mark(2, {0, 1}), std::out_of_range);
}

TEST_CASE("a file that was looked into begins where it is read in earnest") {
  constexpr std::uint64_t kLarge = 256 * kMiB;
  TouchedBytes touched({kLarge, kLarge, kGrain, kLarge});
  for (const std::size_t file : {3U, 1U, 0U, 2U}) touched.mark(file, {0, kGrain});
  CHECK(touched.order() == std::vector<std::size_t>{3, 1, 0, 2});
  touched.mark(1, {0, kLarge / 32 - 1});
  touched.mark(0, {kMiB, 100 * kMiB});
  CHECK(touched.order() == std::vector<std::size_t>{3, 2, 1, 0});
  touched.mark(3, {0, kLarge});
  touched.mark(1, {0, kLarge});
  CHECK(touched.order() == std::vector<std::size_t>{2, 1, 0, 3});
}

TEST_CASE("files are in the order in which something of them was touched first") {
  TouchedBytes touched({kGrain, kGrain, kGrain});
  touched.mark(2, {0, 1});
  touched.mark(0, {0, 1});
  touched.mark(2, {9, 1});
  CHECK(touched.order() == std::vector<std::size_t>{2, 0});
}

TEST_CASE("what is not touched yet of a range") {
  TouchedBytes touched({8 * kGrain});
  CHECK(touched.untouched(0, {5, 9 * kGrain}) == std::vector<ByteRange>{{5, 8 * kGrain - 5}});
  touched.mark(0, {2 * kGrain, 1});
  CHECK(touched.untouched(0, {5, 4 * kGrain}) ==
        std::vector<ByteRange>{{5, 2 * kGrain - 5}, {3 * kGrain, kGrain + 5}});
  CHECK(touched.untouched(0, {2 * kGrain, kGrain}).empty());
  CHECK(touched.untouched(0, {9 * kGrain, kGrain}).empty());
}

TEST_CASE("unexpected is what lies more than a grain beside what was expected") {
  TouchedBytes touched({20 * kGrain, 4 * kGrain});
  touched.mark(0, {0, 1});
  CHECK(touched.unexpected_bytes() == 0);  // nothing ever was expected
  touched.expect(0, {5 * kGrain, kGrain});
  touched.mark(0, {4 * kGrain, 3 * kGrain});
  CHECK(touched.unexpected_bytes() == 0);
  touched.mark(0, {3 * kGrain, 1});
  touched.mark(0, {7 * kGrain, 1});
  CHECK(touched.unexpected_bytes() == 2 * kGrain);
  touched.mark(1, {0, 1});
  CHECK(touched.unexpected_bytes() == 3 * kGrain);
  touched.expect(1, {3 * kGrain, kNoEnd});
  touched.mark(1, {2 * kGrain, 2 * kGrain});
  CHECK(touched.unexpected_bytes() == 3 * kGrain);
}

TEST_SUITE_END();
