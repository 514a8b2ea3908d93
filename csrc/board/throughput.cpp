#include "board/throughput.h"

#include <algorithm>

namespace shardahead {

std::optional<std::uint64_t> Throughput::settle(std::uint64_t block_bytes,
                                                std::uint64_t node_read_bytes, Time now) {
  if (epoch_started_bytes_ == 0) {
    // The first epoch begins with the first block of the full size: many small ones at the head
    // say nothing of the large ones that follow.
    if (block_bytes >= largest_block_bytes_ / 2) begin_epoch(node_read_bytes, now);
    return std::nullopt;
  }
  const std::uint64_t bytes = node_read_bytes - std::min(node_read_bytes, epoch_started_bytes_);
  const double seconds = std::chrono::duration<double>(now - epoch_started_).count();
  if (!climb_.is_epoch(bytes, seconds)) return std::nullopt;
  const bool filled = looks_ > 0 && claimed_bytes_ / looks_ > climb_.bytes() / 2;
  climb_.epoch(bytes, seconds, filled);
  begin_epoch(node_read_bytes, now);
  return climb_.bytes();
}

void Throughput::looked(std::uint64_t claimed_bytes) noexcept {
  ++looks_;
  claimed_bytes_ += claimed_bytes;
}

void Throughput::begin_epoch(std::uint64_t node_read_bytes, Time now) noexcept {
  epoch_started_bytes_ = node_read_bytes;
  epoch_started_ = now;
  looks_ = claimed_bytes_ = 0;
}

}  // namespace shardahead
