#include "board/life.h"

#include <algorithm>

namespace shardahead {

std::chrono::microseconds mean_block_time(std::chrono::microseconds mean,
                                          std::chrono::microseconds latest) noexcept {
  using std::chrono::microseconds;
  latest = std::clamp<microseconds>(latest, microseconds(1), kMostBlockTime);
  if (mean <= microseconds(0)) return latest;
  return std::max(microseconds(1), (std::min<microseconds>(mean, kMostBlockTime) * 7 + latest) / 8);
}

std::chrono::nanoseconds silence_allowed(std::chrono::microseconds block_time) noexcept {
  if (block_time <= std::chrono::microseconds(0)) return kMostSilence;
  return std::clamp<std::chrono::nanoseconds>(kSilentBlocks * block_time, kLeastSilence,
                                              kMostSilence);
}

std::chrono::nanoseconds LifeWatch::silence(std::uint32_t life, Time now) noexcept {
  if (seen_ == life) {
    silence_ += std::min<std::chrono::nanoseconds>(now - looked_, kLongestLook);
  } else {
    silence_ = std::chrono::nanoseconds(0);
  }
  seen_ = life;
  looked_ = now;
  return silence_;
}

}  // namespace shardahead
