#include "engine/engine.h"

#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/signals_blocked.h"
#include "engine/engine_state.h"

namespace shardahead {

Engine::Engine(FileIo& io, std::shared_ptr<const Plan> plan, std::shared_ptr<FileTable> files,
               std::unique_ptr<Claims> claims, const EngineOptions& options, Runtime& runtime) {
  if (options.threads < 1 || options.threads > kMaxThreads) {
    throw std::invalid_argument("threads must be between 1 and 256, not " +
                                std::to_string(options.threads));
  }
  state_ = std::make_shared<State>(io, std::move(plan), std::move(files), std::move(claims),
                                   options, runtime);
  State& state = *state_;
  const auto wanted = std::min<std::size_t>(options.threads, state.claims->wanted().size());
  const SignalsBlocked blocked;
  const MutexLock lock(state.mutex);
  state.ended = state.started;
  try {
    for (std::size_t i = 0; i < wanted; ++i) {
      // Detached, because a join could wait for a dead server for ever. The engine still owns them:
      // it counts them in and out, and cancels them when it goes.
      runtime.start_thread("shardahead-" + std::to_string(i),
                           [state = state_, shared = state.claims] { state->work(*shared); });
      ++state.running;
    }
  } catch (const std::exception&) {
    // Fewer threads do the same work. None at all is a prefetch that failed, and says so.
    if (state.running == 0) {
      IoError error = caught_error("pthread_create", "", 0);
      error.detail.clear();
      state.record(std::move(error));
    }
  }
  state.figures.threads = state.running;
  state.leave_claims();  // for want of work or of threads
}

Engine::~Engine() { cancel(); }

bool Engine::wait(std::chrono::nanoseconds timeout) {
  if (!state_->process.is_here()) return true;
  State& state = *state_;
  const MutexLock lock(state.mutex);
  // wait_for adds the time to a clock, where "for ever" would wrap around.
  const auto bounded = std::min<std::chrono::nanoseconds>(timeout, std::chrono::hours(24 * 365));
  const auto until = std::chrono::steady_clock::now() + bounded;
  while (state.running != 0) {
    if (!state.ended_or_left.wait_until(state.mutex, until)) return state.running == 0;
  }
  return true;
}

void Engine::cancel() {
  // A forked child has none of the threads, and perhaps a mutex that one of them held.
  if (!state_->process.is_here()) return;
  const MutexLock lock(state_->mutex);
  // A worker that sits in a read on a dead server may keep its claims for long.
  if (state_->claims && state_->options.consumer) state_->claims->end_consumer();
  if (state_->running > 0) {
    state_->cancelled.store(true, std::memory_order_relaxed);
    ring(state_->claims->doorbell());
    state_->ended_or_left.notify_all();
  } else {
    state_->give_up_claims();
  }
}

bool Engine::done() const {
  if (!state_->process.is_here()) return true;
  const MutexLock lock(state_->mutex);
  return state_->running == 0;
}

bool Engine::cancelled() const { return state_->cancelled.load(std::memory_order_relaxed); }

Progress Engine::progress() const {
  if (!state_->process.is_here()) return {};
  const MutexLock lock(state_->mutex);
  const Report report = state_->current();
  return {report.planned_bytes, report.settled_bytes(), state_->seconds()};
}

Report Engine::report() const {
  if (!state_->process.is_here()) return {};
  const MutexLock lock(state_->mutex);
  Report report = state_->current();
  const Step step = state_->steps.first();
  report.step_bytes = step.bytes;
  report.step_source = to_string(step.source);
  report.strategy_used = report.strategy;
  const Strategy asked = state_->options.strategy;
  if (asked == Strategy::automatic || asked == Strategy::populate) {
    report.strategy_used = to_string(step.populate == Populate::works ? Strategy::populate
                                     : step.advice_works              ? Strategy::fadvise
                                                                      : Strategy::pread);
  }
  report.seconds = state_->seconds();
  const Window window = state_->control.window();
  report.window_bytes = window.ahead_bytes;
  report.window_source = to_string(window.source);
  report.keeping = to_string(state_->verdict().value_or(Keeping::unknown));
  report.done = state_->running == 0;
  report.cancelled = cancelled();
  // Cancelled, what is still in flight is not waited for.
  const bool over = report.done || report.cancelled;
  report.left_out_bytes = over ? report.planned_bytes - report.settled_bytes() : 0;
  return report;
}

}  // namespace shardahead
