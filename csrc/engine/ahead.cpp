#include "engine/ahead.h"

#include <algorithm>
#include <new>
#include <utility>

namespace shardahead {
namespace {

constexpr auto kBetweenMemoryLooks = std::chrono::milliseconds(500);

}  // namespace

Ahead::Ahead(Runtime& runtime, const WindowControl& control, BudgetBytes budget,
             bool follows_consumer)
    : runtime_(runtime),
      budget_(std::move(budget)),
      follows_consumer_(follows_consumer),
      control_(control) {}

Window Ahead::window() const {
  const MutexLock lock(mutex_);
  return control_.window();
}

std::uint64_t Ahead::limit(Claims& claims) const {
  std::uint64_t window_bytes = 0;
  ConsumerPosition position;
  {
    const MutexLock lock(mutex_);
    window_bytes = control_.window().ahead_bytes;
    position = consumer_;
  }
  if (window_bytes == 0) return kNoEnd;
  if (follows_consumer_) {
    position = claims.slowest_consumer(runtime_.now()).value_or(position);
  }
  return claims.window_end(window_bytes, position);
}

void Ahead::look_at_memory() {
  if (!budget_) return;
  {
    const MutexLock lock(mutex_);
    const auto now = runtime_.now();
    if (now - looked_at_memory_ < kBetweenMemoryLooks) return;
    looked_at_memory_ = now;
  }
  std::optional<std::uint64_t> budget_bytes;
  try {
    budget_bytes = budget_();
  } catch (const std::bad_alloc&) {
    return;
  }
  const MutexLock lock(mutex_);
  control_.set_budget(budget_bytes, runtime_.now());
}

void Ahead::add_evicted(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  control_.add_evicted(bytes, runtime_.now());
}

ConsumerPosition Ahead::move_consumer(const ConsumerPosition& position) {
  const MutexLock lock(mutex_);
  return std::exchange(consumer_, position);
}

ConsumerPosition Ahead::consumer() const {
  const MutexLock lock(mutex_);
  return consumer_;
}

void ring_if_opened(Runtime& runtime, const Plan& plan, Claims& claims, std::uint64_t window_bytes,
                    const ConsumerPosition& before, const ConsumerPosition& position) {
  const ConsumerPosition slowest = claims.slowest_consumer(runtime.now()).value_or(position);
  const std::uint64_t end = claims.window_end(window_bytes, slowest);
  const auto begin_of = [&](const Block& block) { return plan.position(block); };
  const auto opened = std::ranges::lower_bound(
      plan.blocks(), claims.window_end(window_bytes, slower_of(before, slowest)), {}, begin_of);
  if (opened != plan.blocks().end() && begin_of(*opened) < end) {
    ring(claims.doorbell());
  } else {
    runtime.ring_unheard(claims.doorbell());
  }
}

}  // namespace shardahead
