// consumption: what is held, passed and released; positions are small numbers here.
#include "plan/consumption.h"

#include <doctest/doctest.h>

using namespace shardahead;

TEST_SUITE_BEGIN("consumption");

namespace {

constexpr std::uint64_t kPatient = 1000;

using Ranges = std::vector<ByteRange>;

}  // namespace

TEST_CASE("a consumer that holds nothing has released what it has passed") {
  Consumption consumption;
  CHECK(consumption.pass(10, 15, kPatient) == ConsumerPosition{10, 15, 10});
}

TEST_CASE("released is what lies before the first tensor that is held") {
  Consumption consumption;
  consumption.hand_out({0, 10});
  consumption.hand_out({10, 10});
  CHECK(consumption.pass(20, 30, kPatient).released_bytes == 0);
  consumption.release({0, 10});
  CHECK(consumption.pass(20, 30, kPatient).released_bytes == 10);
  consumption.release({10, 10});
  CHECK(consumption.pass(20, 30, kPatient).released_bytes == 20);
}

TEST_CASE("what was handed out ahead does not count before it is passed") {
  Consumption consumption;
  consumption.hand_out({20, 10});
  CHECK(consumption.pass(10, 10, kPatient).released_bytes == 10);
  CHECK(consumption.pass(25, 25, kPatient).released_bytes == 20);
}

TEST_CASE("a straggler is not waited for, and comes late") {
  Consumption consumption;
  consumption.hand_out({0, 10});
  consumption.hand_out({10, 10});
  consumption.release({10, 10});
  CHECK(consumption.take_late().empty());
  CHECK(consumption.pass(20, 20, 10).released_bytes == 20);
  CHECK(consumption.not_held({0, 20}) == Ranges{{10, 10}});
  consumption.release({0, 10});
  CHECK(consumption.take_late() == Ranges{{0, 10}});
  CHECK(consumption.take_late().empty());
  CHECK(consumption.not_held({0, 20}) == Ranges{{0, 20}});
}

TEST_CASE("no more is released than may be") {
  Consumption consumption;
  CHECK(consumption.pass(20, 20, kPatient, 5).released_bytes == 5);
  CHECK(consumption.pass(20, 20, kPatient, 0).released_bytes == 5);
  CHECK(consumption.pass(20, 20, kPatient, 30).released_bytes == 20);
}

TEST_CASE("the same bytes may be held twice") {
  Consumption consumption;
  consumption.hand_out({0, 10});
  consumption.hand_out({0, 10});
  consumption.hand_out({0, 4});
  consumption.release({0, 10});
  CHECK(consumption.not_held({0, 12}) == Ranges{{10, 2}});
  consumption.release({0, 10});
  CHECK(consumption.not_held({0, 12}) == Ranges{{4, 8}});
}

TEST_CASE("parts that no one holds, around, between and within") {
  Consumption consumption;
  consumption.hand_out({10, 5});
  consumption.hand_out({20, 30});
  CHECK(consumption.not_held({0, 60}) == Ranges{{0, 10}, {15, 5}, {50, 10}});
  CHECK(consumption.not_held({12, 20}) == Ranges{{15, 5}});
  CHECK(consumption.not_held({25, 5}).empty());
  CHECK(consumption.not_held({45, 0}).empty());
}

TEST_CASE("positions never go back") {
  Consumption consumption;
  CHECK(consumption.pass(20, 30, kPatient) == ConsumerPosition{20, 30, 20});
  CHECK(consumption.pass(10, 15, kPatient) == ConsumerPosition{20, 30, 20});
}

TEST_CASE("what was never handed out is released without harm") {
  Consumption consumption;
  consumption.release({0, 10});
  CHECK(consumption.take_late().empty());
}

TEST_SUITE_END();
