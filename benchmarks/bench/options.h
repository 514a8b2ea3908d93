// options: the command line of shardahead-bench, each default stated once. Checks values, looks at
// no file. Used once, before any thread starts.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/byte_range.h"
#include "plan/strategy.h"

namespace shardahead::bench {

enum class CacheState { cold, warm };  // 0 % or 100 % of the measured bytes resident

const char* to_string(CacheState state) noexcept;

struct Options {
  std::vector<Strategy> strategies{Strategy::automatic, Strategy::fadvise, Strategy::pread};
  std::vector<std::uint32_t> threads{1, 4};
  std::vector<std::uint64_t> block_bytes{16 * kMiB};
  std::vector<CacheState> states{CacheState::cold, CacheState::warm};
  std::uint32_t repeats = 3;
  std::uint64_t limit_bytes = 2 * kGiB;  // 0: everything
  bool json = false;
  bool verbose = false;  // all columns, also where the terminal is too narrow for them
  std::string output;    // a file for the JSON; empty: none
  std::string shown_as;  // what stands for the paths in a command; empty: they do
  bool show_help = false;
  bool show_version = false;
  std::vector<std::string> paths;
};

inline constexpr std::uint32_t kMaxRepeats = 1000;

// Names the option and the value that was refused.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

Options parse_options(int argc, const char* const* argv);

std::string usage_text();

}  // namespace shardahead::bench
