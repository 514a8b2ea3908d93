// rate_limit: when the next bytes may be read, so that on average no more are read than a rate
// allows. What has been read is paid for with time: an account is the moment until which it is
// paid, and one moment is all that those who share a limit have in common. Pure: it is told the
// time. Any thread.
#pragma once

#include <chrono>
#include <cstdint>

namespace shardahead {

class RateLimit {
 public:
  using Time = std::chrono::steady_clock::time_point;
  // Nanoseconds since the clock began; 0 where nothing has been read yet.
  using PaidUntil = std::uint64_t;

  // What was read unasked is remembered for so long, besides a burst.
  static constexpr auto kMostDebt = std::chrono::seconds(10);

  // 0 is no limit. Besides what the rate allows, `piece_bytes`, the most that is asked for at once,
  // and a tenth of a second's bytes may be read in a burst.
  RateLimit(std::uint64_t bytes_per_s, std::uint64_t piece_bytes);

  [[nodiscard]] bool limits() const noexcept { return bytes_per_s_ != 0; }
  [[nodiscard]] std::uint64_t bytes_per_s() const noexcept { return bytes_per_s_; }
  [[nodiscard]] std::uint64_t burst_bytes() const noexcept { return burst_bytes_; }

  // How long until so many bytes may be read; zero is now.
  [[nodiscard]] std::chrono::nanoseconds pause(PaidUntil paid_until, std::uint64_t bytes,
                                               Time now) const noexcept;
  // The account once they have been, after that pause.
  [[nodiscard]] PaidUntil paid(PaidUntil paid_until, std::uint64_t bytes, Time now) const noexcept;
  // The account where they have been read without a pause.
  [[nodiscard]] PaidUntil charged(PaidUntil paid_until, std::uint64_t bytes,
                                  Time now) const noexcept;
  // The account where so many bytes were paid for and not read.
  [[nodiscard]] PaidUntil paid_back(PaidUntil paid_until, std::uint64_t bytes) const noexcept;

 private:
  [[nodiscard]] PaidUntil price(std::uint64_t bytes) const noexcept;
  [[nodiscard]] PaidUntil most(Time now) const noexcept;

  std::uint64_t bytes_per_s_;
  std::uint64_t burst_bytes_;
};

}  // namespace shardahead
