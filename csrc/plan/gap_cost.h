// gap_cost: how long a gap between two wanted ranges may be for reading through it to be cheaper
// than another request. Found by how long reads took: what one costs by itself over what a byte
// costs. Pure: it is told what was measured. Guarded by its owner.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/byte_range.h"

namespace shardahead {

class GapCost {
 public:
  // Assumed until reads of different sizes have been seen: those of a network's server.
  static constexpr std::uint64_t kDefaultBytes = 256 * kKiB;
  static constexpr std::uint64_t kLeastBytes = 4 * kKiB;  // a page, which is read whole
  static constexpr std::uint64_t kMostBytes = 4 * kMiB;

  // One read of so many bytes, by one thread.
  void note(std::uint64_t read_bytes, std::chrono::nanoseconds duration) noexcept;
  [[nodiscard]] std::uint64_t gap_bytes() const noexcept { return gap_bytes_; }

 private:
  // Of the last reads, each counting a little less than the one after it.
  struct Means {
    double weight = 0;
    double bytes = 0;
    double seconds = 0;
    double bytes_squared = 0;
    double bytes_seconds = 0;
  };

  void fit() noexcept;

  Means sums_;
  double request_seconds_ = 0;
  double byte_seconds_ = 0;
  std::uint64_t gap_bytes_ = kDefaultBytes;
};

}  // namespace shardahead
