// runtime_condition: a condition whose waits a Runtime carries out, so that a test's threads are
// seen to wait. Used under one mutex, as a condition is. Without anyone who waits, to notify costs
// nothing; of those who do, each is woken once.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/doorbell.h"
#include "base/runtime.h"
#include "base/thread_safety.h"

namespace shardahead {

class RuntimeCondition {
 public:
  explicit RuntimeCondition(Runtime& runtime) : runtime_(runtime) {}

  // Whoever waits registered with the mutex held, so none of them is missed.
  void notify_all(Mutex& mutex) noexcept REQUIRES(mutex) {
    static_cast<void>(mutex);
    if (waiting_ == 0) return;
    waiting_ = 0;
    ring(word_);
  }

  // Returns for no reason, too. Lets go of the mutex meanwhile.
  void wait(Mutex& mutex, std::chrono::nanoseconds timeout) noexcept REQUIRES(mutex) {
    const std::uint32_t seen = doorbell_seen(word_);
    ++waiting_;
    mutex.unlock();
    runtime_.wait_for_ring(word_, seen, timeout);
    mutex.lock();
    if (doorbell_seen(word_) == seen) --waiting_;  // not rung: it has not been counted out
  }

 private:
  Runtime& runtime_;
  DoorbellWord word_{0};
  std::uint32_t waiting_ = 0;  // and have not been rung
};

}  // namespace shardahead
