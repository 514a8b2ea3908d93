// parallel_trial: on mounts of which each is a formula, when several readers are let at it.
#include "reader/parallel_trial.h"

#include <doctest/doctest.h>

#include <deque>
#include <functional>

using namespace shardahead;
using std::chrono::microseconds;

TEST_SUITE_BEGIN("parallel_trial");

namespace {

constexpr std::uint64_t kPieceBytes = 4 * kMiB;

// How long a piece takes that is read together with so many.
using Mount = std::function<double(std::uint64_t bytes, std::size_t together)>;

// One at a time gets `alone`, several get `together` in all, bytes per second.
Mount of_rates(double alone, double together) {
  return [=](std::uint64_t bytes, std::size_t count) {
    return static_cast<double>(bytes) * static_cast<double>(count) /
           (count == 1 ? alone : together);
  };
}

struct Load {
  double seconds = 0;  // until the last piece was begun: of how it ends these formulas tell nothing
  std::uint64_t together_bytes = 0;  // while others were being read, too
  std::size_t most_together = 0;
};

Load read(ParallelTrial& trial, const Mount& mount, std::uint64_t bytes) {
  Load load;
  ParallelTrial::Time now{std::chrono::seconds(1)};
  const auto began = now;
  std::deque<std::uint64_t> running;
  while (bytes > 0 || !running.empty()) {
    while (bytes > 0 && trial.may_begin()) {
      running.push_back(std::min(bytes, trial.piece_bytes()));
      bytes -= running.back();
      trial.begun(now);
      load.seconds = std::chrono::duration<double>(now - began).count();
    }
    REQUIRE_FALSE(running.empty());
    const double seconds =
        mount(running.front(), running.size()) / static_cast<double>(running.size());
    now += std::chrono::duration_cast<ParallelTrial::Time::duration>(
        std::chrono::duration<double>(seconds));
    load.most_together = std::max(load.most_together, running.size());
    if (running.size() > 1) load.together_bytes += running.front();
    trial.ended(running.front(), now);
    running.pop_front();
  }
  return load;
}

}  // namespace

TEST_CASE("a mount that gives several more is read by all of them") {
  ParallelTrial trial(4, kPieceBytes);
  const Load load = read(trial, of_rates(25e6, 300e6), 1 * kGiB);
  CHECK(load.most_together == 4);
  CHECK(load.seconds < 1.04 * static_cast<double>(1 * kGiB) / 300e6);
  CHECK(trial.advises());
  CHECK(trial.piece_bytes() == kPieceBytes);
}

TEST_CASE("a server with one stream for a file is read in order, and costs little to find out") {
  ParallelTrial trial(4, kPieceBytes);
  const Load load = read(trial, of_rates(90e6, 4e6), 1 * kGiB);
  CHECK_FALSE(trial.advises());
  CHECK(load.together_bytes < 3 * (300'000 * 4 + 4 * ParallelTrial::kTriedPieceBytes));
  CHECK(load.seconds < 1.2 * static_cast<double>(1 * kGiB) / 90e6);
}

TEST_CASE("until it is known one reads in order, and the kernel is told nothing") {
  ParallelTrial trial(8, kPieceBytes);
  const ParallelTrial::Time now{std::chrono::seconds(1)};
  CHECK_FALSE(trial.advises());
  CHECK(trial.piece_bytes() == ParallelTrial::kOpeningBytes);
  REQUIRE(trial.may_begin());
  trial.begun(now);
  CHECK_FALSE(trial.may_begin());
  trial.ended(ParallelTrial::kOpeningBytes, now + microseconds(5000));
  CHECK(trial.may_begin());
}

TEST_CASE("what comes from memory is read by all, and what comes from elsewhere then, too") {
  ParallelTrial trial(4, kPieceBytes);
  read(trial, of_rates(5e9, 10e9), 4 * kMiB);
  CHECK(trial.piece_bytes() == ParallelTrial::kSmallPieceBytes);
  const Load load = read(trial, of_rates(25e6, 300e6), 1 * kGiB);
  CHECK(load.seconds < 1.05 * static_cast<double>(1 * kGiB) / 300e6);
}

TEST_CASE("several that have become slower than one was are held against one anew") {
  ParallelTrial trial(4, kPieceBytes);
  read(trial, of_rates(100e6, 300e6), 256 * kMiB);
  // All of it is slower: they stay.
  const Load all_slower = read(trial, of_rates(20e6, 60e6), 512 * kMiB);
  CHECK(all_slower.seconds < 1.1 * static_cast<double>(512 * kMiB) / 60e6);
  CHECK(trial.piece_bytes() == kPieceBytes);
  // They alone are: one goes on.
  const Load several_slower = read(trial, of_rates(18e6, 6e6), 512 * kMiB);
  CHECK(several_slower.together_bytes < 2 * ParallelTrial::kLastLookBytes);
  CHECK_FALSE(trial.advises());
}

TEST_CASE("one who reads in order has others try again") {
  ParallelTrial trial(4, kPieceBytes);
  read(trial, of_rates(90e6, 4e6), 32 * kMiB);
  CHECK_FALSE(trial.advises());
  read(trial, of_rates(25e6, 300e6), 256 * kMiB);
  CHECK(trial.advises());
}

TEST_CASE("one reader has nothing to try") {
  ParallelTrial trial(1, kPieceBytes);
  CHECK(trial.advises());
  CHECK(trial.piece_bytes() == kPieceBytes);
  CHECK(read(trial, of_rates(90e6, 4e6), 256 * kMiB).most_together == 1);
  CHECK(trial.piece_bytes() == kPieceBytes);
}

TEST_SUITE_END();
