// matrix: the cells to measure and the order in which one repeat visits them. Pure: the same
// options give the same order in every run. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "options.h"

namespace shardahead::bench {

struct Setting {
  Strategy strategy = Strategy::automatic;
  std::uint32_t threads = 1;
  std::uint64_t block_bytes = 0;
  friend bool operator==(const Setting&, const Setting&) = default;
};

struct Cell {
  Setting setting;
  CacheState state = CacheState::cold;
  friend bool operator==(const Cell&, const Cell&) = default;
};

// What Shardahead does when nothing is set.
Setting default_setting();

// "fadvise, 4 threads, 16MiB"
std::string to_string(const Setting& setting);

// All cells, in the order of the options; those of one setting stand together, cold before warm.
std::vector<Cell> cells_of(const Options& options);

// Indices of the cells in the order of this repeat: settings shuffled anew for each, so that no
// cell always follows the same one. A warm cell comes right after its cold one, which has warmed
// it.
std::vector<std::size_t> order_of(const std::vector<Cell>& cells, std::uint32_t repeat);

}  // namespace shardahead::bench
