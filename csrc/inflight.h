// inflight: how many bytes a node may have in flight, found by climbing: up while throughput grows,
// back when it does not. Pure: it is told what was settled and when, and has no clock of its own.
// One thread at a time.
#pragma once

#include <algorithm>
#include <cstdint>

#include "byte_range.h"

namespace shardahead {

// Two blocks of the default size: with one, the link idles while its successor is being claimed.
inline constexpr std::uint64_t kMinInflightBytes = 32 * kMiB;
inline constexpr std::uint64_t kFirstInflightBytes = kMinInflightBytes;
inline constexpr std::uint64_t kMaxInflightBytes = 1 * kGiB;

class InflightClimb {
 public:
  // Fixed at `set_bytes` where that is not 0.
  explicit InflightClimb(std::uint64_t set_bytes = 0)
      : bytes_(set_bytes != 0 ? set_bytes : kFirstInflightBytes), fixed_(set_bytes != 0) {}

  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

  // `settled_bytes` were brought in during `seconds`, with bytes() in flight all the while. Calls
  // for less than an epoch (see epoch_bytes) say too little and are not made.
  void epoch(std::uint64_t settled_bytes, double seconds);

  // An epoch is as long as it takes to bring in this much: what was in flight before the last
  // change has then left.
  [[nodiscard]] std::uint64_t epoch_bytes() const noexcept { return 3 * bytes_; }

 private:
  enum class Trying { more, less, nothing };

  // Less than this is noise; more of it in flight has to earn it.
  static constexpr double kGain = 1.05;
  static constexpr double kLoss = 0.98;
  // Epochs between two tries, once neither more nor less was better.
  static constexpr std::uint32_t kRest = 8;

  void attempt(Trying what);
  void settle_for(std::uint64_t bytes);

  std::uint64_t bytes_;
  bool fixed_;
  Trying trying_ = Trying::more;
  std::uint64_t best_bytes_ = 0;  // what the last try is held against
  double best_rate_ = 0;
  bool last_was_more_ = true;
  std::uint32_t rest_ = 0;
};

}  // namespace shardahead
