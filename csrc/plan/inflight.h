// inflight: how many bytes a node may have in flight, found by climbing: up while throughput grows,
// back when it does not. Pure: it is told what was settled and when, and has no clock of its own.
// One thread at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "base/byte_range.h"
#include "base/limit.h"

namespace shardahead {

inline constexpr std::uint64_t kMinInflightBytes = 16 * kMiB;  // one block of the default size
inline constexpr std::uint64_t kMaxInflightBytes = 1 * kGiB;

class InflightClimb {
 public:
  // Never less than one block: a single disk is fastest when only one stream reads it. Begins with
  // four: with fewer, a link with a long round trip idles between blocks while the processors are
  // busy. Fixed at `set_bytes` where that is not 0.
  explicit InflightClimb(std::uint64_t block_bytes, std::uint64_t set_bytes = 0)
      : least_bytes_(std::max(block_bytes, kMinInflightBytes)),
        bytes_(set_bytes != 0 ? set_bytes : 4 * least_bytes_),
        fixed_(set_bytes != 0) {}

  // Goes on from where another climb was, or says that it was.
  void resume(std::uint64_t bytes, Limit found = Limit::unknown) noexcept {
    if (fixed_) return;
    limit_ = found;
    bytes_ = std::clamp<std::uint64_t>(bytes, 1, std::max(least_bytes_, kMaxInflightBytes));
  }

  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

  // Storage, where twice as much in flight brought no more when that was last compared; threads,
  // where it could not be, because less was in flight than might have been. Unknown before anything
  // was compared, and as long as more still brings more.
  [[nodiscard]] Limit limit() const noexcept { return limit_; }

  // `settled_bytes` were brought in during `seconds`, with bytes() in flight all the while. Calls
  // for less than an epoch say too little and are not made. Not `filled`: no more was in flight
  // than half of bytes() would have let be.
  void epoch(std::uint64_t settled_bytes, double seconds, bool filled = true);

  // Whether that was an epoch. What was in flight before the last change has to leave first; a slow
  // device is not given the time for that.
  [[nodiscard]] bool is_epoch(std::uint64_t settled_bytes, double seconds) const noexcept {
    return settled_bytes >= epoch_bytes() || (settled_bytes >= bytes_ && seconds >= kLongEpoch);
  }
  [[nodiscard]] std::uint64_t epoch_bytes() const noexcept { return 3 * bytes_; }

 private:
  enum class Direction { less, more };
  struct Measured {
    std::uint64_t bytes = 0;  // in flight
    double rate = 0;
    bool filled = true;
  };
  struct Try {
    Direction direction;
    std::uint64_t bytes;          // in flight
    std::uint32_t confirmed = 0;  // times that it was better
  };

  // What a try has to gain. Less in flight has to gain more: where processors are busy, rates vary
  // by a tenth, and one block in flight instead of four costs a third of the throughput. On a disk
  // that seeks, half as much in flight gains 50 % and more.
  static constexpr double kGain = 1.05;
  static constexpr double kGainWithLess = 1.2;
  // A gain of that size cannot be noise. A smaller one has to be seen again, each time after the
  // bytes in flight before the try were measured again: of epochs that vary by 15 % one in three is
  // better by 5 %.
  static constexpr double kCertainGain = 1.45;
  static constexpr std::uint32_t kConfirmations = 2;
  static constexpr double kLongEpoch = 0.5;  // seconds
  // Epochs before the next try, once neither more nor less was better. Twice as many after each
  // try in vain: on a disk that seeks, a try costs half the throughput while it lasts.
  static constexpr std::uint32_t kRest = 8;
  static constexpr std::uint32_t kMaxDoublings = 4;

  void judge(Try& trying, const Measured& now);
  void note_limit(const Try& trying, const Measured& now) noexcept;
  void accept(Direction direction, const Measured& now);
  void attempt(Direction direction);
  void settle_for(std::uint64_t bytes);

  std::uint64_t least_bytes_;
  std::uint64_t bytes_;
  bool fixed_;
  std::optional<Try> try_;
  Measured best_;  // what a try is compared with
  Limit limit_ = Limit::unknown;
  // The try after this one.
  bool first_ = true;  // the first tries follow upon each other: less, and if that is worse, more
  Direction next_ = Direction::less;
  std::uint32_t vain_ = 0;  // tries since the last that was better
  std::uint32_t rest_ = 0;  // epochs until then
};

}  // namespace shardahead
