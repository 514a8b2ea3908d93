// The trial before the first block of a device: whether its mount keeps what is brought in. The
// worker that has the block carries it out and the others wait for it, so that nothing is fetched
// in vain.
#include <exception>
#include <utility>

#include "base/signals_blocked.h"
#include "engine/engine_state.h"

namespace shardahead {
namespace {

// A trial that sits in a read for so long holds up no one else.
constexpr auto kTrialPatience = std::chrono::seconds(1);
constexpr auto kConsumerTrialPatience = std::chrono::seconds(10);

}  // namespace

// False where it would be in vain. `tried_bytes` of the ranges have been brought in.
bool Engine::State::try_mount(const File& file, const std::vector<ByteRange>& ranges,
                              std::uint64_t& tried_bytes) {
  if (!options.tries_mounts || ranges.empty()) return true;
  const std::uint64_t device = file.status().device;
  std::shared_ptr<Claims> shared;
  {
    MutexLock lock(mutex);
    const auto [trial, is_first] = trials.try_emplace(device);
    const auto deadline = runtime.now() + kTrialPatience;
    while (!is_first && !trial->second && !cancelled.load(std::memory_order_relaxed) &&
           runtime.now() < deadline) {
      wait_for_trial(lock, {});
    }
    if (!is_first) return !keeps_nothing(trial->second.value_or(Keeping::unknown));
    shared = claims;
  }
  const KeepingCheck found = try_page_of(file, ranges, shared);
  tried_bytes = found.read_bytes;
  const MutexLock lock(mutex);
  trials[device] = found.keeping;
  ring(trial_bell);
  return !keeps_nothing(found.keeping);
}

// Unless others know already: what these read by then makes the mount look as if it kept pages.
KeepingCheck Engine::State::try_page_of(const File& file, const std::vector<ByteRange>& ranges,
                                        const std::shared_ptr<Claims>& shared) {
  const Keeping told = shared ? shared->told_keeping() : Keeping::unknown;
  if (keeps_nothing(told)) return {told, 0};
  const KeepingCheck found = check_keeping(io, file, ranges);
  if (shared && keeps_nothing(found.keeping)) shared->tell_keeping(found.keeping);
  return found;
}

// Gives up the lock meanwhile. That the lock is one of the mutex is more than the analysis can see.
void Engine::State::wait_for_trial(MutexLock& lock,
                                   const std::function<void()>& between) NO_THREAD_SAFETY_ANALYSIS {
  const std::uint32_t seen = doorbell_seen(trial_bell);
  lock.unlock();
  runtime.wait_for_ring(trial_bell, seen, kConsumerSlice);
  if (between) between();
  lock.lock();
}

// On the first block, which others have, or have had.
void Engine::State::try_alone() noexcept {
  bool tried = false;
  try {
    tried = try_first_block();
  } catch (const std::exception&) {
    tried = false;
  }
  if (tried) return;
  const MutexLock lock(mutex);
  trial_failed = true;
  ring(trial_bell);
}

bool Engine::State::try_first_block() {
  std::uint64_t ignored = 0;
  for (const Block& block : plan->blocks()) {
    const auto ranges = plan->wanted(block);
    if (ranges.empty()) continue;
    try_mount(*files->acquire(block.file), ranges, ignored);
    return true;
  }
  return false;
}

// Called with the mutex locked. The worst of all devices, as far as they have been tried, here or
// by others.
std::optional<Keeping> Engine::State::verdict() const {
  const Keeping told = claims ? claims->told_keeping() : told_keeping;
  if (keeps_nothing(told)) return told;
  std::optional<Keeping> worst = trial_failed ? std::optional(Keeping::unknown) : std::nullopt;
  for (const auto& [device, found] : trials) {
    if (!found) continue;
    if (keeps_nothing(*found)) return found;
    if (!worst || *found == Keeping::unknown) worst = found;
  }
  return worst;
}

bool Engine::State::is_in_vain() const {
  const MutexLock lock(mutex);
  return keeps_nothing(verdict().value_or(Keeping::unknown));
}

Keeping Engine::keeping(const std::function<void()>& between) {
  State& state = *state_;
  if (!state.process.is_here() || !state.options.tries_mounts) return Keeping::unknown;
  const auto deadline = state.runtime.now() + kConsumerTrialPatience;
  MutexLock lock(state.mutex);
  while (!state.verdict() && !cancelled() && state.runtime.now() < deadline) {
    if (state.running == 0 && !std::exchange(state.tried_alone, true)) {
      // No worker had a block to try. A thread that can be left behind.
      try {
        const SignalsBlocked blocked;
        state.runtime.start_thread("shardahead-try", [kept = state_] { kept->try_alone(); });
      } catch (const std::exception&) {
        return Keeping::unknown;  // no threads, or no memory for one
      }
    }
    state.wait_for_trial(lock, between);
  }
  return state.verdict().value_or(Keeping::unknown);
}

}  // namespace shardahead
