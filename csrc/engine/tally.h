// tally: what one participant has brought in, block by block, and what went wrong: the figures of
// its report. It is told, and asks no one but the claims for what others have done. Nothing that it
// records takes memory. Any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "base/report.h"
#include "base/thread_safety.h"
#include "board/claims.h"
#include "engine/fetch_result.h"
#include "plan/plan.h"
#include "plan/strategy.h"

namespace shardahead {

class Tally {
 public:
  Tally(const Plan& plan, const Claims& claims, Strategy strategy);

  // What became of the ranges of a block. They count once: a claim that was taken over may have
  // come back to another thread of this process. Errors are recorded each time.
  void add(std::uint32_t block, std::vector<FetchResult> results, Outcome outcome) noexcept;
  // None of it was brought in, for this reason.
  void add_failed(std::uint32_t block, std::uint64_t wanted_bytes, IoError error) noexcept;
  void record(IoError error) noexcept;

  // A worker has taken a block of so many wanted bytes; it has settled it.
  void add_claimed(std::uint64_t bytes) noexcept;
  void remove_claimed(std::uint64_t bytes) noexcept;
  [[nodiscard]] std::uint64_t claimed_bytes() const noexcept;

  void add_cpu_seconds(double seconds) noexcept;
  void add_refetched(std::uint64_t bytes) noexcept;
  void add_dropped(std::uint64_t bytes) noexcept;
  void set_threads(std::uint32_t threads) noexcept;
  [[nodiscard]] std::uint32_t threads() const noexcept;

  // Of this process; of others as well once they are of the past.
  [[nodiscard]] bool has_failed(BlockRange blocks) const noexcept;
  // What others have done is of the past from now on: the figures keep it as it is.
  void close(const Claims& claims) noexcept;
  // With what others have done, unless `claims` are given up. Whoever looks for the claims first
  // finds either them or, once they are gone, what close() kept; never both.
  [[nodiscard]] Report figures(const Claims* claims) const;

 private:
  void count(const FetchResult& result) noexcept REQUIRES(mutex_);
  void record_locked(IoError error) noexcept REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::vector<bool> counted_blocks_ GUARDED_BY(mutex_);  // whose bytes are in the figures
  std::vector<bool> failed_blocks_ GUARDED_BY(mutex_);
  Report figures_ GUARDED_BY(mutex_);
  std::uint64_t claimed_bytes_ GUARDED_BY(mutex_) = 0;
  bool closed_ GUARDED_BY(mutex_) = false;
};

}  // namespace shardahead
