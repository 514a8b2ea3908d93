// pace: how fast the workers of an engine take blocks, where a rate limit asks for it. A worker
// pays for a block before it takes one, and is paid back what was resident: so whoever waits holds
// no block, and no one waits for it. What a consumer reads by itself is never held up; the workers
// make up for it. Without a limit nothing is asked or counted. Any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "base/runtime.h"
#include "board/claims.h"
#include "plan/plan.h"
#include "plan/rate_limit.h"

namespace shardahead {

class Pace {
 public:
  // `runtime` must outlive it. 0 is no limit.
  Pace(Runtime& runtime, const Plan& plan, std::uint64_t rate_limit_bytes_per_s);
  ~Pace() = default;
  Pace(const Pace&) = delete;
  Pace& operator=(const Pace&) = delete;

  [[nodiscard]] bool limits() const noexcept { return limit_.limits(); }
  [[nodiscard]] const RateLimit& limit() const noexcept { return limit_; }
  // Zero where a worker may take a block now: it is paid for, and has to be settled. Else how long
  // it has to wait.
  std::chrono::nanoseconds pay(Claims& claims) noexcept;
  // So much was read for what was paid.
  void settle(Claims& claims, std::uint64_t read_bytes) noexcept;
  // A consumer has read so much. `claims`, if any, are those of this engine.
  void charge(Claims* claims, std::uint64_t read_bytes) noexcept;

 private:
  using Account = std::atomic<RateLimit::PaidUntil>;
  // The one that others of this node share, where there is one.
  Account& account_of(Claims* claims) noexcept;

  Runtime& runtime_;
  const std::uint64_t block_bytes_;  // the largest there is
  const RateLimit limit_;
  Account own_{0};
};

}  // namespace shardahead
