// fetch_result: what of a fetch a participant counts.
#include "engine/fetch_result.h"

#include <doctest/doctest.h>

using namespace shardahead;

TEST_SUITE_BEGIN("fetch_result");

TEST_CASE("what was not there before anyone read near it counts as read") {
  std::uint64_t noted_bytes = 4096;
  FetchResult first{.resident_bytes = 1000, .read_bytes = 5};
  count_noted(first, noted_bytes, false);
  CHECK(first.resident_bytes == 1000);
  CHECK(first.read_bytes == 5);
  FetchResult second{.resident_bytes = 10'000};
  count_noted(second, noted_bytes, false);
  CHECK(second.resident_bytes == 3096);
  CHECK(second.read_bytes == 10'000 - 3096);
  FetchResult third{.resident_bytes = 7, .read_bytes = 8, .failed_bytes = 9};
  count_noted(third, noted_bytes, false);
  CHECK(third.resident_bytes == 0);
  CHECK(third.read_bytes == 15);
  CHECK(third.failed_bytes == 9);
}

TEST_CASE("of a block with which others were done it is theirs") {
  std::uint64_t noted_bytes = 1000;
  FetchResult result{.resident_bytes = 5000, .read_bytes = 5};
  count_noted(result, noted_bytes, true);
  CHECK(noted_bytes == 0);
  CHECK(result.resident_bytes == 1000);
  CHECK(result.shared_bytes == 4000);
  CHECK(result.read_bytes == 5);
  count_at_most(result, 4000);
  CHECK(result.resident_bytes == 1000);
  CHECK(result.shared_bytes == 3000);
  CHECK(result.read_bytes == 0);
}

TEST_CASE("what was asked for counts as it is") {
  FetchResult result{.resident_bytes = 10, .read_bytes = 20, .lost_bytes = 15, .failed_bytes = 30};
  count_at_most(result, 60);
  CHECK(result.resident_bytes == 10);
  CHECK(result.read_bytes == 20);
  CHECK(result.lost_bytes == 15);
  CHECK(result.failed_bytes == 30);
}

TEST_CASE("beyond what was asked for nothing counts: the failed bytes go first, then those read") {
  struct Counted {
    std::uint64_t most, resident, read, lost, failed;
  };
  for (const Counted& want :
       {Counted{59, 10, 20, 15, 29}, Counted{30, 10, 20, 15, 0}, Counted{25, 10, 15, 15, 0},
        Counted{22, 10, 12, 12, 0}, Counted{9, 9, 0, 0, 0}, Counted{0, 0, 0, 0, 0}}) {
    CAPTURE(want.most);
    FetchResult result{
        .resident_bytes = 10, .read_bytes = 20, .lost_bytes = 15, .failed_bytes = 30};
    count_at_most(result, want.most);
    CHECK(result.resident_bytes == want.resident);
    CHECK(result.read_bytes == want.read);
    CHECK(result.lost_bytes == want.lost);
    CHECK(result.failed_bytes == want.failed);
  }
}

TEST_CASE("what else is known of a fetch stays") {
  FetchResult result{.read_bytes = 20, .faulted_bytes = 20, .cancelled = true};
  result.error = IoError{5, "pread", "file", 0, ""};
  count_at_most(result, 0);
  CHECK(result.faulted_bytes == 20);
  CHECK(result.cancelled);
  CHECK(result.error.has_value());
}

TEST_SUITE_END();
