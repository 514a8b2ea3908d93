// life: who counts as stopped, and after how long.
#include "board/life.h"

#include <doctest/doctest.h>

using namespace shardahead;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

TEST_SUITE_BEGIN("life");

namespace {

constexpr LifeWatch::Time kStart{};

}  // namespace

TEST_CASE(
    "silence is allowed for three blocks, within bounds, and for the most where none is known") {
  CHECK(silence_allowed(microseconds(0)) == kMostSilence);
  CHECK(silence_allowed(microseconds(1)) == kLeastSilence);
  CHECK(silence_allowed(milliseconds(2000)) == seconds(6));
  CHECK(silence_allowed(kMostBlockTime) == kMostSilence);
}

TEST_CASE("the time of a block is a mean that forgets, and that no outlier spoils for long") {
  auto mean = mean_block_time(microseconds(0), milliseconds(100));
  CHECK(mean == milliseconds(100));
  for (int i = 0; i < 50; ++i) mean = mean_block_time(mean, milliseconds(200));
  CHECK(mean > milliseconds(195));
  mean = mean_block_time(mean, std::chrono::hours(5));  // its reader was stopped
  CHECK(mean <= kMostBlockTime);
  for (int i = 0; i < 30; ++i) mean = mean_block_time(mean, milliseconds(200));
  CHECK(silence_allowed(mean) < seconds(4));
  CHECK(mean_block_time(microseconds(-5), microseconds(-5)) > microseconds(0));
}

TEST_CASE("who changes nothing is silent since it was first seen so") {
  LifeWatch watch;
  CHECK(watch.silence(7, kStart + seconds(100)) == nanoseconds(0));
  CHECK(watch.silence(7, kStart + seconds(100) + milliseconds(200)) == milliseconds(200));
  CHECK(watch.silence(7, kStart + seconds(100) + milliseconds(300)) == milliseconds(300));
  CHECK(watch.silence(8, kStart + seconds(101)) == nanoseconds(0));
  CHECK(watch.silence(8, kStart + seconds(101) + milliseconds(100)) == milliseconds(100));
}

TEST_CASE("who was stopped together with another has not seen it silent") {
  LifeWatch watch;
  watch.silence(7, kStart);
  CHECK(watch.silence(7, kStart + std::chrono::hours(1)) < kLeastSilence);
}

TEST_SUITE_END();
