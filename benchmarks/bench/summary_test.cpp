// summary: medians over what counts, and words for what does not.
#include "summary.h"

#include <doctest/doctest.h>

#include "base/byte_range.h"

using namespace shardahead;
using namespace shardahead::bench;

TEST_SUITE_BEGIN("bench_summary");

namespace {

Repeat measured(double seconds) {
  Repeat repeat;
  repeat.outcome = RepeatOutcome::measured;
  repeat.measured_bytes = kGiB;
  repeat.seconds = seconds;
  repeat.cpu_seconds = seconds / 10;
  repeat.resident_after_bytes = kGiB;
  repeat.requests = Requests{100, kGiB};
  return repeat;
}

Repeat refused(RepeatOutcome outcome, std::string reason) {
  Repeat repeat;
  repeat.outcome = outcome;
  repeat.reason = std::move(reason);
  return repeat;
}

CellResult result_of(std::vector<Repeat> repeats, CacheState state = CacheState::cold) {
  return {{{Strategy::fadvise, 4, 16 * kMiB}, state}, std::move(repeats)};
}

}  // namespace

TEST_CASE("median, least and most") {
  CHECK_FALSE(spread_of({}));
  CHECK(spread_of({3})->median == 3);
  const auto odd = spread_of({9, 1, 4});
  CHECK(odd->median == 4);
  CHECK(odd->least == 1);
  CHECK(odd->most == 9);
  CHECK(spread_of({4, 1, 2, 9})->median == 3);
}

TEST_CASE("only measured repeats count") {
  const CellSummary summary =
      summary_of(result_of({measured(2), refused(RepeatOutcome::not_cold, "mapped"), measured(4),
                            refused(RepeatOutcome::failed, "EIO"), measured(1)}));
  CHECK(summary.counted == 3);
  CHECK(summary.seconds->median == 2);
  CHECK(summary.megabytes_per_second->median == doctest::Approx(1073.741824 / 2));
  CHECK(summary.megabytes_per_second->least == doctest::Approx(1073.741824 / 4));
  CHECK(summary.cpu_seconds_per_gib->median == doctest::Approx(0.2));
  CHECK(summary.resident_after_share->least == 1);
  CHECK(summary.read_requests->median == 100);
  CHECK_FALSE(summary.step_bytes);
}

TEST_CASE("no figure where nothing was measured, or one repeat does not know") {
  const CellSummary nothing = summary_of(result_of({refused(RepeatOutcome::not_cold, "mapped")}));
  CHECK(nothing.counted == 0);
  CHECK_FALSE(nothing.seconds);
  CHECK_FALSE(nothing.megabytes_per_second);
  auto untold = measured(1);
  untold.requests.reset();
  untold.resident_after_bytes.reset();
  const CellSummary partly = summary_of(result_of({measured(1), untold}));
  CHECK(partly.counted == 2);
  CHECK_FALSE(partly.read_requests);
  CHECK_FALSE(partly.resident_after_share);
  CHECK(partly.seconds);
}

TEST_CASE("remarks: one for each reason and state, never for what was measured") {
  CHECK(remarks_of({result_of({measured(1)})}).empty());
  const auto one = remarks_of({result_of({measured(1), refused(RepeatOutcome::not_cold, "mapped"),
                                          refused(RepeatOutcome::not_cold, "mapped")})});
  REQUIRE(one.size() == 1);
  CHECK(one[0] == "fadvise, 4 threads, 16MiB, cold: 2 repeats could not be made cold: mapped");
  const auto many =
      remarks_of({result_of({refused(RepeatOutcome::not_cold, "mapped")}),
                  result_of({refused(RepeatOutcome::not_warm, "mapped")}, CacheState::warm),
                  result_of({refused(RepeatOutcome::not_cold, "mapped"),
                             refused(RepeatOutcome::failed, "Input/output error")})});
  REQUIRE(many.size() == 3);
  CHECK(many[0] == "2 cells, cold: 2 repeats could not be made cold: mapped");
  CHECK(many[1] == "fadvise, 4 threads, 16MiB, warm: 1 repeat could not be made warm: mapped");
  CHECK(many[2] == "fadvise, 4 threads, 16MiB, cold: 1 repeat failed: Input/output error");
}
