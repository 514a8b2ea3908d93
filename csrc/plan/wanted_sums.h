// wanted_sums: how many bytes are wanted of each block of a plan, and where in the plan so many
// wanted bytes lie ahead of a place or behind it. What is not wanted takes neither memory nor time,
// so a window counts what is. Pure values: whose wants they are, it is told. One thread at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "plan/plan.h"
#include "plan/window.h"

namespace shardahead {

class WantedSums {
 public:
  // What this plan wants. It must outlive the sums.
  explicit WantedSums(const Plan& plan);

  // Anew: `bytes_of(index)` of each block are wanted; more than it has counts as all of it. Needs
  // no memory after the first time.
  template <typename BytesOf>
  void sum_up(BytesOf&& bytes_of) {
    const std::vector<Block>& blocks = plan_.blocks();
    sums_.resize(blocks.size() + 1);
    everything_ = true;
    for (std::size_t index = 0; index < blocks.size(); ++index) {
      const std::uint64_t bytes = std::min<std::uint64_t>(
          bytes_of(static_cast<std::uint32_t>(index)), blocks[index].range.length);
      everything_ &= bytes == blocks[index].range.length;
      sums_[index + 1] = sums_[index] + bytes;
    }
  }

  [[nodiscard]] std::uint64_t of(std::uint32_t block) const noexcept {
    return everything_ ? plan_.blocks()[block].range.length : sums_[block + 1] - sums_[block];
  }
  [[nodiscard]] std::uint64_t all() const noexcept {
    return everything_ ? plan_.total_bytes() : sums_.back();
  }

  // Blocks that begin before this position may be claimed: so many wanted bytes lie between there
  // and what is consumed, to a block. A window too small for what is needed next grows to it, or
  // its consumer would wait for ever. 0 is no window.
  [[nodiscard]] std::uint64_t window_end(std::uint64_t window_bytes,
                                         const ConsumerPosition& consumer) const noexcept;
  // The position from which on at least so many wanted bytes lie before `position`, to a block.
  [[nodiscard]] std::uint64_t behind(std::uint64_t position,
                                     std::uint64_t wanted_bytes) const noexcept;

 private:
  // Wanted before a position; of the block that it lies in as little as may be.
  [[nodiscard]] std::uint64_t before(std::uint64_t position) const noexcept;

  const Plan& plan_;
  bool everything_ = true;           // then a position counts wanted bytes, and no sum is needed
  std::vector<std::uint64_t> sums_;  // of all blocks before each, and of all
};

}  // namespace shardahead
