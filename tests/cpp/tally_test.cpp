// tally: the figures of one participant, and those of the others.
#include "engine/tally.h"

#include <doctest/doctest.h>

#include <cerrno>

#include "engine_fixture.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("tally");

namespace {

constexpr std::uint64_t kBlockBytes = kMinBlockBytes;

// Four blocks, of which three are wanted.
struct TallyFixture {
  Plan plan{{{4 * kBlockBytes, {}}}, {kBlockBytes, kBlockBytes, 0}};
  ToldClaims claims{{0, 1, 3}};
  Tally tally{plan, claims, Strategy::fadvise};
};

FetchResult read(std::uint64_t bytes) { return {.read_bytes = bytes}; }

IoError error_of(std::uint64_t offset) { return {EIO, "pread", "file", offset, ""}; }

}  // namespace

TEST_CASE("what is wanted is planned, and the strategy is the one that was asked for") {
  const TallyFixture fixture;
  const Report report = fixture.tally.figures(nullptr);
  CHECK(report.planned_bytes == 3 * kBlockBytes);
  CHECK(report.strategy == "fadvise");
  CHECK(report.settled_bytes() == 0);
}

TEST_CASE("the ranges of a block count once, their errors each time") {
  TallyFixture fixture;
  for (int i = 0; i < 2; ++i) {
    FetchResult failed{.resident_bytes = 1, .read_bytes = 2, .lost_bytes = 1, .failed_bytes = 4};
    failed.error = error_of(7);
    fixture.tally.add(1, {read(100), std::move(failed)}, Outcome::failed);
  }
  const Report report = fixture.tally.figures(nullptr);
  CHECK(report.resident_bytes == 1);
  CHECK(report.read_bytes == 102);
  CHECK(report.lost_bytes == 1);
  CHECK(report.failed_bytes == 4);
  CHECK(report.error_count == 2);
  CHECK(report.errors.at(1).offset == 7);
  CHECK(fixture.tally.has_failed({1, 2}));
  CHECK_FALSE(fixture.tally.has_failed({0, 1}));
}

TEST_CASE("a block of which nothing came has failed as a whole, unless it had come before") {
  TallyFixture fixture;
  fixture.tally.add_failed(0, kBlockBytes, error_of(0));
  fixture.tally.add_failed(0, kBlockBytes, error_of(0));
  fixture.tally.add(1, {read(kBlockBytes)}, Outcome::done);
  fixture.tally.add_failed(1, kBlockBytes, error_of(kBlockBytes));
  const Report report = fixture.tally.figures(nullptr);
  CHECK(report.failed_bytes == kBlockBytes);
  CHECK(report.read_bytes == kBlockBytes);
  CHECK(report.error_count == 3);
  CHECK(fixture.tally.has_failed({0, 1}));
  CHECK(fixture.tally.has_failed({1, 2}));
}

TEST_CASE("of very many errors the first are told, and all are counted") {
  TallyFixture fixture;
  for (std::uint64_t i = 0; i < 3 * Report::kMaxErrors; ++i) fixture.tally.record(error_of(i));
  const Report report = fixture.tally.figures(nullptr);
  CHECK(report.error_count == 3 * Report::kMaxErrors);
  REQUIRE(report.errors.size() == Report::kMaxErrors);
  CHECK(report.errors.back().offset == Report::kMaxErrors - 1);
}

TEST_CASE("what others do counts until the claims are given up, and then stays as it was") {
  TallyFixture fixture;
  fixture.claims.others = {.done_bytes = 100, .failed_bytes = 10};
  fixture.claims.inflight = 5;
  fixture.claims.limits = Limit::storage;
  CHECK(fixture.tally.figures(nullptr).shared_bytes == 0);
  CHECK(fixture.tally.figures(&fixture.claims).shared_bytes == 100);
  CHECK(fixture.tally.figures(&fixture.claims).failed_bytes == 10);
  CHECK(fixture.tally.figures(&fixture.claims).limited_by == Limit::storage);
  fixture.tally.close(fixture.claims);
  fixture.claims.others.done_bytes = 200;
  fixture.claims.limits = Limit::threads;
  for (const Claims* claims :
       {static_cast<const Claims*>(nullptr), static_cast<const Claims*>(&fixture.claims)}) {
    // Whoever looked for the claims before they were given up still has them.
    const Report report = fixture.tally.figures(claims);
    CHECK(report.shared_bytes == 100);
    CHECK(report.failed_bytes == 10);
    CHECK(report.inflight_bytes == 5);
    CHECK(report.limited_by == Limit::storage);
  }
  fixture.tally.close(fixture.claims);
  CHECK(fixture.tally.figures(nullptr).shared_bytes == 100);
}

TEST_CASE("the node has brought in what is counted of it, and this participant's at least") {
  TallyFixture fixture;
  fixture.tally.add(0, {read(100)}, Outcome::done);
  CHECK(fixture.tally.figures(nullptr).node_read_bytes == 100);
  CHECK(fixture.tally.figures(&fixture.claims).node_read_bytes == 100);
  fixture.claims.others.node_read_bytes = 250;
  CHECK(fixture.tally.figures(&fixture.claims).node_read_bytes == 250);
  fixture.tally.close(fixture.claims);
  fixture.claims.others.node_read_bytes = 300;
  CHECK(fixture.tally.figures(nullptr).node_read_bytes == 250);
}

TEST_CASE("the failures of others are known once the claims are given up") {
  TallyFixture fixture;
  fixture.claims.unsettled = 0;
  fixture.claims.failed_block = 3;
  CHECK_FALSE(fixture.tally.has_failed({0, 4}));
  fixture.tally.close(fixture.claims);
  CHECK(fixture.tally.has_failed({0, 4}));
  CHECK_FALSE(fixture.tally.has_failed({0, 3}));
}

TEST_CASE("what is not of a block is added up") {
  TallyFixture fixture;
  for (int i = 0; i < 2; ++i) {
    fixture.tally.add_cpu_seconds(0.5);
    fixture.tally.add_refetched(3);
    fixture.tally.add_dropped(4);
  }
  fixture.tally.set_threads(7);
  CHECK(fixture.tally.threads() == 7);
  const Report report = fixture.tally.figures(nullptr);
  CHECK(report.cpu_seconds == 1.0);
  CHECK(report.refetched_bytes == 6);
  CHECK(report.dropped_bytes == 8);
  CHECK(report.threads == 7);
}

TEST_SUITE_END();
