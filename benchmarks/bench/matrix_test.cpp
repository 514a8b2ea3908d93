// matrix: which cells there are and in which order they are visited.
#include "matrix.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>

using namespace shardahead;
using namespace shardahead::bench;

TEST_SUITE_BEGIN("bench_matrix");

namespace {

Options wide() {
  Options options;
  options.threads = {1, 2, 4, 8};
  options.block_bytes = {4 * kMiB, 16 * kMiB};
  return options;
}

}  // namespace

TEST_CASE("every combination once, cold before warm") {
  Options options = wide();
  options.states = {CacheState::warm, CacheState::cold};
  const auto cells = cells_of(options);
  REQUIRE(cells.size() == 3 * 4 * 2 * 2);
  for (std::size_t i = 0; i < cells.size(); i += 2) {
    CHECK(cells[i].setting == cells[i + 1].setting);
    CHECK(cells[i].state == CacheState::cold);
    CHECK(cells[i + 1].state == CacheState::warm);
  }
  CHECK(std::find(cells.begin(), cells.end(), cells.front()) == cells.begin());
  CHECK(std::count(cells.begin(), cells.end(), cells.back()) == 1);
}

TEST_CASE("each repeat visits all cells, each in an order of its own, the same in every run") {
  const auto cells = cells_of(wide());
  std::set<std::vector<std::size_t>> orders;
  for (std::uint32_t repeat = 1; repeat <= 5; ++repeat) {
    auto order = order_of(cells, repeat);
    CHECK(order == order_of(cells, repeat));
    orders.insert(order);
    for (std::size_t i = 0; i < order.size(); i += 2) CHECK(order[i + 1] == order[i] + 1);
    std::sort(order.begin(), order.end());
    for (std::size_t i = 0; i < order.size(); ++i) CHECK(order[i] == i);
  }
  CHECK(orders.size() == 5);
}

TEST_CASE("one cell and none") {
  CHECK(order_of({}, 1).empty());
  CHECK(order_of({Cell{}}, 1) == std::vector<std::size_t>{0});
}

TEST_CASE("a setting in words") {
  CHECK(to_string(Setting{Strategy::fadvise, 1, 16 * kMiB}) == "fadvise, 1 thread, 16MiB");
  CHECK(to_string(default_setting()) == "auto, 4 threads, 16MiB");
}
