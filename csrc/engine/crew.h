// crew: how many workers of an engine run, the claims that they work on, and whether they have been
// told to stop. It starts no thread and takes no block. The claims are given up when the last
// worker has ended and no consumer reports any more: then the board is left. Any thread.
//
// Its mutex is taken before any other of the engine's: the farewell is called with it held.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/runtime.h"
#include "base/runtime_condition.h"
#include "base/thread_safety.h"
#include "board/claims.h"

namespace shardahead {

class Crew {
 public:
  // Told the claims just before they are given up. It must not throw, nor come back here.
  using Farewell = std::function<void(const Claims&)>;
  // A claims' consumer that still reports keeps its place until cancel().
  Crew(Runtime& runtime, std::unique_ptr<Claims> claims, bool has_consumer, Farewell farewell);
  ~Crew() = default;
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  // Calls `start` with the number of each worker, until it says false: so many are counted in. Each
  // of them has to leave(). None leaves before all are counted. Once.
  using Start = std::function<bool(std::uint32_t, const std::shared_ptr<Claims>&)>;
  std::uint32_t begin(std::uint32_t workers, const Start& start);
  void leave() noexcept;
  // Nobody is to take a further block. The consumer is at its end.
  void cancel();
  // True as soon as no worker runs; false after `timeout`.
  bool wait(std::chrono::nanoseconds timeout);
  // The same, but may come back sooner for no reason: for who looks at something else between.
  bool wait_a_moment(std::chrono::nanoseconds timeout);

  // Read by fetchers between system calls; set once. It orders nothing: relaxed is enough.
  [[nodiscard]] const std::atomic<bool>& cancelled() const noexcept { return cancelled_; }
  [[nodiscard]] bool is_cancelled() const noexcept {
    return cancelled_.load(std::memory_order_relaxed);
  }

  struct Status {
    std::uint32_t running = 0;
    double seconds = 0;              // from the start to now, or to the end of the last worker
    std::shared_ptr<Claims> claims;  // nothing once they are given up
  };
  [[nodiscard]] Status status() const;
  [[nodiscard]] std::shared_ptr<Claims> claims() const;
  // Nothing as soon as no worker of this process takes a further block.
  [[nodiscard]] std::shared_ptr<Claims> claims_at_work() const;

 private:
  void give_up_claims() noexcept REQUIRES(mutex_);
  void end_if_idle() noexcept REQUIRES(mutex_);

  Runtime& runtime_;
  const bool has_consumer_;
  const Farewell farewell_;
  const Runtime::Time started_;
  std::atomic<bool> cancelled_{false};

  mutable Mutex mutex_;
  RuntimeCondition ended_ GUARDED_BY(mutex_);  // of the last worker
  std::shared_ptr<Claims> claims_ GUARDED_BY(mutex_);
  std::uint32_t running_ GUARDED_BY(mutex_) = 0;
  Runtime::Time ended_at_ GUARDED_BY(mutex_);
};

}  // namespace shardahead
