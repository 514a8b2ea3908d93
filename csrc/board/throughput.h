// throughput: how much the whole node brings in, measured epoch by epoch, and what may be in flight
// by that. Pure: it is told what was settled and when, and has no clock of its own. Which
// participant measures for all, the board decides. One thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "plan/inflight.h"

namespace shardahead {

class Throughput {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // `largest_block_bytes` of the blocks that are wanted; `set_inflight_bytes` as in InflightClimb.
  explicit Throughput(std::uint64_t largest_block_bytes, std::uint64_t set_inflight_bytes = 0)
      : largest_block_bytes_(largest_block_bytes),
        climb_(largest_block_bytes, set_inflight_bytes) {}

  [[nodiscard]] std::uint64_t inflight_bytes() const noexcept { return climb_.bytes(); }
  // What limits it, as in InflightClimb.
  [[nodiscard]] Limit limit() const noexcept { return climb_.limit(); }
  // From now on this participant measures: goes on from where another one was.
  void resume(std::uint64_t inflight_bytes, Limit found = Limit::unknown) noexcept {
    climb_.resume(inflight_bytes, found);
  }

  // A worker has looked for a block, and so much of all is in flight then.
  void looked(std::uint64_t claimed_bytes) noexcept;
  // A block of `block_bytes` has been settled, and the node has brought in `node_read_bytes` so
  // far. At the end of an epoch: what may be in flight from now on.
  std::optional<std::uint64_t> settle(std::uint64_t block_bytes, std::uint64_t node_read_bytes,
                                      Time now);

 private:
  void begin_epoch(std::uint64_t node_read_bytes, Time now) noexcept;

  std::uint64_t largest_block_bytes_;
  InflightClimb climb_;
  std::uint64_t epoch_started_bytes_ = 0;  // 0: none has begun, for nothing had been brought in
  Time epoch_started_;
  std::uint64_t looks_ = 0;          // in this epoch
  std::uint64_t claimed_bytes_ = 0;  // at all of them
};

}  // namespace shardahead
