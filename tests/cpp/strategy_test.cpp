// strategy: the table of steps.
#include "plan/strategy.h"

#include <doctest/doctest.h>

#include <string>

#include "node/file_io.h"

using namespace shardahead;

TEST_SUITE_BEGIN("strategy");

TEST_CASE("names lead back to their strategies") {
  for (const Strategy strategy : {Strategy::automatic, Strategy::populate, Strategy::fadvise,
                                  Strategy::readahead, Strategy::pread}) {
    CHECK(strategy_from(to_string(strategy)) == strategy);
  }
  CHECK(std::string(to_string(Strategy::automatic)) == "auto");
  CHECK_FALSE(strategy_from("mmap"));
}

TEST_CASE("an unknown device has the assumed step, and asking does not make it known") {
  const StepTable steps;
  CHECK(steps.get(7).bytes == kDefaultStepBytes);
  CHECK(steps.get(7).source == StepSource::assumed);
  CHECK(steps.get(7).advice_works);
  CHECK(steps.first().source == StepSource::assumed);
}

TEST_CASE("one caller measures at a time, and nobody after it succeeded") {
  StepTable steps;
  CHECK(steps.begin_measuring(1));
  CHECK_FALSE(steps.begin_measuring(1));
  steps.end_measuring(1, 1 * kMiB);
  CHECK_FALSE(steps.begin_measuring(1));
  CHECK(steps.get(1).bytes == 1 * kMiB);
  CHECK(steps.get(1).source == StepSource::measured);
  CHECK(steps.get(1).advice_works);
}

TEST_CASE("devices are measured apart; the first is reported") {
  StepTable steps;
  CHECK(steps.begin_measuring(1));
  CHECK(steps.begin_measuring(2));
  steps.end_measuring(2, 256 * kKiB);
  steps.end_measuring(1, 8 * kMiB);
  CHECK(steps.get(1).bytes == 8 * kMiB);
  CHECK(steps.get(2).bytes == 256 * kKiB);
  CHECK(steps.first().bytes == 8 * kMiB);
}

TEST_CASE("a measurement that said nothing is made again, but not for ever") {
  StepTable steps;
  int attempts = 0;
  while (attempts < 1000 && steps.begin_measuring(1)) {
    ++attempts;
    steps.end_measuring(1, std::nullopt);
  }
  CHECK(attempts == 8);
  CHECK(steps.get(1).source == StepSource::assumed);
  CHECK(steps.get(1).bytes == kDefaultStepBytes);
}

TEST_CASE("a clip of nothing means that advice does not work") {
  StepTable steps;
  REQUIRE(steps.begin_measuring(1));
  steps.end_measuring(1, 0);
  CHECK_FALSE(steps.get(1).advice_works);
  CHECK(steps.get(1).bytes == kDefaultStepBytes);
}

TEST_CASE("a step that loses bytes is halved once, however many threads say so") {
  StepTable steps;
  REQUIRE(steps.begin_measuring(1));
  steps.end_measuring(1, 1 * kMiB);
  for (int thread = 0; thread < 4; ++thread) steps.report_loss(1, 1 * kMiB);
  CHECK(steps.get(1).bytes == 512 * kKiB);
  CHECK(steps.get(1).source == StepSource::lowered);
  CHECK_FALSE(steps.begin_measuring(1));
}

TEST_CASE("a late report of a step that was lowered since does not raise it again") {
  StepTable steps;
  REQUIRE(steps.begin_measuring(1));
  steps.end_measuring(1, 1 * kMiB);
  steps.report_loss(1, 1 * kMiB);
  steps.report_loss(1, 512 * kKiB);
  steps.report_loss(1, 1 * kMiB);
  CHECK(steps.get(1).bytes == 256 * kKiB);
}

TEST_CASE("the step is never lowered below the assumed one, and stays in whole pages") {
  StepTable steps;
  REQUIRE(steps.begin_measuring(1));
  steps.end_measuring(1, 1000 * kKiB);
  for (int loss = 0; loss < 20; ++loss) {
    steps.report_loss(1, steps.get(1).bytes);
    CHECK(steps.get(1).bytes % kMinStepBytes == 0);
  }
  CHECK(steps.get(1).bytes == kDefaultStepBytes);
}

namespace {
constexpr ByteRange kWindow = {0, kPopulateBytes};
}

TEST_CASE("populating works once a window came") {
  StepTable steps;
  CHECK(steps.get(1).populate == Populate::untried);
  steps.end_populating(1, kWindow, 128 * kKiB);
  CHECK(steps.get(1).populate == Populate::untried);
  steps.end_populating(1, kWindow, kPopulateBytes);
  CHECK(steps.get(1).populate == Populate::works);
  CHECK(steps.get(2).populate == Populate::untried);
}

TEST_CASE("populating is given up after three windows of which next to nothing came") {
  StepTable steps;
  for (int window = 0; window < 3; ++window) {
    steps.end_populating(1, kWindow, 128 * kKiB);
  }
  CHECK(steps.get(1).populate == Populate::fails);
}

TEST_CASE("among many windows that came one in eight may fail, and no more") {
  StepTable steps;
  for (std::uint32_t window = 0; window < 64; ++window) {
    steps.end_populating(1, kWindow, kPopulateBytes);
  }
  std::uint32_t failures = 0;
  while (steps.get(1).populate == Populate::works) {
    steps.end_populating(1, kWindow, 128 * kKiB);
    ++failures;
  }
  CHECK(failures == 2 + (64 + failures) / 8 + 1);
}

TEST_CASE("the end of a file is a short window") {
  StepTable steps;
  steps.end_populating(1, {0, 300 * kKiB}, 300 * kKiB);
  CHECK(steps.get(1).populate == Populate::works);
}

TEST_CASE("a refused call is not made again, and what was measured of the step stays") {
  StepTable steps;
  steps.refuse_populate(1);
  REQUIRE(steps.begin_measuring(1));
  steps.end_measuring(1, 256 * kKiB);
  CHECK(steps.get(1).populate == Populate::fails);
  CHECK(steps.get(1).bytes == 256 * kKiB);
}

TEST_SUITE_END();
