// parallel_trial: whether several readers of a mount get more than one who reads in order. A load
// begins as that one, is tried with several, and stays with what was faster; a server with one
// stream for a file serves several a twentieth. Decides only: it is told what was read, and when.
// One thread at a time.
#pragma once

#include <cstdint>

#include "base/byte_range.h"
#include "base/runtime.h"

namespace shardahead {

class ParallelTrial {
 public:
  using Time = Runtime::Time;

  // A first piece opens the way, and is not counted.
  static constexpr std::uint64_t kOpeningBytes = kMiB / 8;
  // What one reads in order, to be compared: a few round trips, for nothing else is under way.
  static constexpr std::uint64_t kInOrderBytes = kMiB / 4;
  // What is lost where several get less: by each so many pieces of this size, and no more is begun
  // after that time.
  static constexpr std::uint64_t kTriedPieceBytes = kMiB / 4;
  static constexpr std::uint32_t kTriedPieces = 2;
  static constexpr auto kTriedTime = std::chrono::milliseconds(300);
  // Several are looked at after so much, for few small pieces do not tell of many large ones; then
  // after twice that, and so on. Where they were slower than one, large pieces become small, for so
  // much, then for four times that; small ones are tried anew, and then are given up: a server
  // stalls now and then.
  static constexpr std::uint64_t kFirstLookBytes = 8 * kMiB;
  static constexpr std::uint64_t kLastLookBytes = 64 * kMiB;
  static constexpr std::uint64_t kSmallPieceBytes = 1 * kMiB;
  static constexpr std::uint64_t kSmallBytes = 256 * kMiB;
  static constexpr std::uint32_t kMostLostLooks = 2;
  // One who reads in order is held against several anew after so much, then after four times that.
  static constexpr std::uint64_t kRetriedAfterBytes = 64 * kMiB;
  // What comes faster than that comes from memory, where several are faster.
  static constexpr double kMemoryBytesPerSecond = 1.5e9;

  ParallelTrial(std::uint32_t most_readers, std::uint64_t piece_bytes)
      : most_readers_(most_readers),
        piece_bytes_(piece_bytes),
        phase_(most_readers > 1 ? Phase::opening : Phase::parallel),
        small_bytes_left_(most_readers > 1 ? kFirstLookBytes : 0) {}

  // Whether another piece may be begun now.
  [[nodiscard]] bool may_begin() const noexcept;
  // How much of a part is a piece now.
  [[nodiscard]] std::uint64_t piece_bytes() const noexcept;
  // Whether the kernel is told of a piece before it is read: a server that reads in order is not to
  // be told of what lies ahead.
  [[nodiscard]] bool advises() const noexcept { return phase_ >= Phase::trying; }

  void begun(Time now) noexcept;
  void ended(std::uint64_t read_bytes, Time now) noexcept;

 private:
  enum class Phase { opening, in_order, trying, parallel };

  void enter(Phase phase) noexcept;
  // In order, until it is time for another trial.
  void give_up() noexcept;
  void judge() noexcept;
  void look(double bytes_per_second) noexcept;
  [[nodiscard]] double bytes_per_second() const noexcept;

  std::uint32_t most_readers_;
  std::uint64_t piece_bytes_;
  Phase phase_;
  std::uint32_t running_ = 0;
  // Of this phase.
  std::uint32_t begun_ = 0;
  std::uint64_t read_bytes_ = 0;
  Time::duration busy_{0};  // while at least one piece was being read
  Time busy_since_;
  double in_order_bytes_per_second_ = 0;
  std::uint64_t in_order_bytes_ = kInOrderBytes;  // of this phase, in all
  std::uint64_t retried_after_bytes_ = kRetriedAfterBytes;
  std::uint64_t look_bytes_ = kFirstLookBytes;
  std::uint32_t lost_looks_ = 0;             // of small pieces, one after another
  std::uint64_t small_bytes_left_;           // until pieces are large
  std::uint64_t small_bytes_ = kSmallBytes;  // to be left where large ones are slower
};

}  // namespace shardahead
