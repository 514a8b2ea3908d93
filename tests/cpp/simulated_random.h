// simulated_random: the numbers of a simulation, the same for a seed on every machine, which the
// distributions of the standard library do not promise. Not for secrets. One thread.
#pragma once

#include <cstdint>

namespace shardahead::testing {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  // Weyl sequence and a mixing of its bits.
  std::uint64_t next() {
    state_ += 0x9e3779b97f4a7c15;
    std::uint64_t bits = state_;
    bits = (bits ^ (bits >> 30U)) * 0xbf58476d1ce4e5b9;
    bits = (bits ^ (bits >> 27U)) * 0x94d049bb133111eb;
    return bits ^ (bits >> 31U);
  }
  std::uint64_t below(std::uint64_t end) { return next() % end; }
  std::uint64_t between(std::uint64_t least, std::uint64_t most) {
    return least + below(most - least + 1);
  }
  // Every order of magnitude is as likely as the next.
  std::uint64_t spread(std::uint64_t least, std::uint64_t most) {
    std::uint32_t doublings = 0;
    while ((least << (doublings + 1)) <= most) ++doublings;
    const std::uint64_t base = least << below(doublings + 1);
    const std::uint64_t value = base + below(base);
    return value < most ? value : most;
  }
  bool chance(std::uint32_t percent) { return below(100) < percent; }

 private:
  std::uint64_t state_;
};

}  // namespace shardahead::testing
