// ahead: how far the workers may be ahead of the consumers at present: the window in force, which
// memory decides where nothing was given, and where the consumer of this process is. Any thread.
#pragma once

#include <cstdint>

#include "base/runtime.h"
#include "base/thread_safety.h"
#include "board/claims.h"
#include "plan/plan.h"
#include "plan/window.h"

namespace shardahead {

class Ahead {
 public:
  // `follows_consumer`: without a consumer the window begins with the plan, and stays there.
  Ahead(Runtime& runtime, const WindowControl& control, BudgetBytes budget, bool follows_consumer);

  [[nodiscard]] Window window() const;
  // Where claiming ends for now, as a position of the plan.
  [[nodiscard]] std::uint64_t limit(Claims& claims) const;
  // Asks for the budget, twice a second at most. Without memory for that, the next time.
  void look_at_memory();
  // So much had gone before the consumer came for it.
  void add_evicted(std::uint64_t bytes);
  // The consumer of this process is there now; gives where it was before.
  ConsumerPosition move_consumer(const ConsumerPosition& position);
  [[nodiscard]] ConsumerPosition consumer() const;

 private:
  Runtime& runtime_;
  const BudgetBytes budget_;
  const bool follows_consumer_;
  mutable Mutex mutex_;
  WindowControl control_ GUARDED_BY(mutex_);
  ConsumerPosition consumer_ GUARDED_BY(mutex_);
  Runtime::Time looked_at_memory_ GUARDED_BY(mutex_);
};

// The consumer of this process has gone from `before` to `position`, and said so. Where that moves
// the end of the window past the beginning of a block, whoever waits for one is woken; else nothing
// is new for them, and there are many tensors to a block. Of several ranks that report at the same
// time the last one sees the others' positions, and rings.
void ring_if_opened(Runtime& runtime, const Plan& plan, Claims& claims, std::uint64_t window_bytes,
                    const ConsumerPosition& before, const ConsumerPosition& position);

}  // namespace shardahead
