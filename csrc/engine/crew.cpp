#include "engine/crew.h"

#include <algorithm>
#include <utility>

namespace shardahead {

Crew::Crew(Runtime& runtime, std::unique_ptr<Claims> claims, bool has_consumer, Farewell farewell)
    : runtime_(runtime),
      has_consumer_(has_consumer),
      farewell_(std::move(farewell)),
      started_(runtime.now()),
      ended_(runtime),
      claims_(std::move(claims)),
      ended_at_(started_) {}

std::uint32_t Crew::begin(std::uint32_t workers, const Start& start) {
  const MutexLock lock(mutex_);
  while (running_ < workers && start(running_, claims_)) ++running_;
  const std::uint32_t started = running_;
  end_if_idle();  // for want of work or of threads
  return started;
}

void Crew::leave() noexcept {
  const MutexLock lock(mutex_);
  if (--running_ == 0) {
    ended_at_ = runtime_.now();
    end_if_idle();
    ended_.notify_all(mutex_);
  }
}

void Crew::cancel() {
  const MutexLock lock(mutex_);
  // A worker that sits in a read on a dead server may keep its claims for long.
  if (claims_ && has_consumer_) claims_->end_consumer();
  if (running_ > 0) {
    cancelled_.store(true, std::memory_order_relaxed);
    ring(claims_->doorbell());
  } else {
    give_up_claims();
  }
}

bool Crew::wait(std::chrono::nanoseconds timeout) {
  const MutexLock lock(mutex_);
  // It is added to a clock, where "for ever" would wrap around.
  const auto bounded = std::min<std::chrono::nanoseconds>(timeout, std::chrono::hours(24 * 365));
  const auto until = runtime_.now() + bounded;
  while (running_ != 0) {
    const auto left = until - runtime_.now();
    if (left <= std::chrono::nanoseconds::zero()) return false;
    ended_.wait(mutex_, left);
  }
  return true;
}

bool Crew::wait_a_moment(std::chrono::nanoseconds timeout) {
  const MutexLock lock(mutex_);
  if (running_ != 0) ended_.wait(mutex_, timeout);
  return running_ == 0;
}

Crew::Status Crew::status() const {
  const MutexLock lock(mutex_);
  const auto until = running_ == 0 ? ended_at_ : runtime_.now();
  return {running_, std::chrono::duration<double>(until - started_).count(), claims_};
}

std::shared_ptr<Claims> Crew::claims() const {
  const MutexLock lock(mutex_);
  return claims_;
}

std::shared_ptr<Claims> Crew::claims_at_work() const {
  const MutexLock lock(mutex_);
  return running_ == 0 || is_cancelled() ? nullptr : claims_;
}

void Crew::end_if_idle() noexcept {
  if (running_ > 0 || (has_consumer_ && !is_cancelled())) return;
  give_up_claims();
}

void Crew::give_up_claims() noexcept {
  if (!claims_) return;
  farewell_(*claims_);
  claims_.reset();
}

}  // namespace shardahead
