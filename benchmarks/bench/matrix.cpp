#include "matrix.h"

#include <algorithm>
#include <random>

#include "engine/engine.h"
#include "plan/plan.h"
#include "units.h"

namespace shardahead::bench {

Setting default_setting() {
  const EngineOptions engine;
  return {engine.strategy, engine.threads, PlanOptions{}.block_bytes};
}

std::string to_string(const Setting& setting) {
  return std::string(shardahead::to_string(setting.strategy)) + ", " +
         counted(setting.threads, "thread") + ", " + exact_bytes(setting.block_bytes);
}

std::vector<Cell> cells_of(const Options& options) {
  std::vector<CacheState> states = options.states;
  std::sort(states.begin(), states.end());
  std::vector<Cell> cells;
  for (const Strategy strategy : options.strategies) {
    for (const std::uint32_t threads : options.threads) {
      for (const std::uint64_t block_bytes : options.block_bytes) {
        for (const CacheState state : states) {
          cells.push_back({{strategy, threads, block_bytes}, state});
        }
      }
    }
  }
  return cells;
}

std::vector<std::size_t> order_of(const std::vector<Cell>& cells, std::uint32_t repeat) {
  std::vector<std::size_t> firsts;  // the first cell of each setting
  for (std::size_t i = 0; i < cells.size(); ++i) {
    if (i == 0 || cells[i].setting != cells[i - 1].setting) firsts.push_back(i);
  }
  // Not std::shuffle: what it does with the same numbers differs between standard libraries.
  std::mt19937 numbers(repeat + 1);
  for (std::size_t left = firsts.size(); left > 1; --left) {
    std::swap(firsts[left - 1], firsts[numbers() % left]);
  }
  std::vector<std::size_t> order;
  order.reserve(cells.size());
  for (const std::size_t first : firsts) {
    for (std::size_t i = first; i < cells.size() && cells[i].setting == cells[first].setting; ++i) {
      order.push_back(i);
    }
  }
  return order;
}

}  // namespace shardahead::bench
