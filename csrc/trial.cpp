// The trial before the first block: whether the mounts keep what is brought in. One worker carries
// it out and the others wait for it, so that not even a few blocks are fetched in vain.
#include <unistd.h>

#include <set>
#include <system_error>

#include "engine_state.h"
#include "signals_blocked.h"

namespace shardahead {
namespace {

// A trial that sits in a read for so long holds up no one else.
constexpr auto kTrialPatience = std::chrono::seconds(1);
constexpr auto kConsumerTrialPatience = std::chrono::seconds(10);
constexpr auto kConsumerSlice = std::chrono::milliseconds(50);
// How many blocks of the first file are searched for a page that is not resident.
constexpr std::size_t kSearchedBlocks = 64;

}  // namespace

void Engine::State::try_mounts() {
  {
    std::unique_lock lock(mutex);
    if (trial_begun) {
      lock.unlock();
      wait_for_trial(kTrialPatience, {});
      return;
    }
    trial_begun = true;
  }
  const KeepingCheck found = options.tries_mounts ? check_mounts() : KeepingCheck{};
  {
    const std::lock_guard lock(mutex);
    keeping = found.keeping;
    trial_bytes = found.read_bytes;
  }
  ring(trial_bell);
}

void Engine::State::wait_for_trial(std::chrono::seconds longest,
                                   const std::function<void()>& between) {
  const auto deadline = runtime.now() + longest;
  for (;;) {
    const std::uint32_t seen = doorbell_seen(trial_bell);
    {
      const std::lock_guard lock(mutex);
      if (keeping || cancelled.load(std::memory_order_relaxed)) return;
    }
    if (runtime.now() >= deadline) return;
    runtime.wait_for_ring(trial_bell, seen, kConsumerSlice);
    if (between) between();
  }
}

// One file of each device; the worst of them counts for all.
KeepingCheck Engine::State::check_mounts() const {
  std::set<std::uint64_t> seen;
  KeepingCheck worst{Keeping::keeps, 0};
  for (std::uint32_t index = 0; index < files->size(); ++index) {
    if (seen.contains(files->status(index).device)) continue;
    const BlockRange blocks = plan->blocks_under(index, {0, files->size_bytes(index)});
    std::vector<ByteRange> ranges;
    for (std::uint32_t block = blocks.begin; block < blocks.end; ++block) {
      const auto wanted = plan->wanted(plan->blocks()[block]);
      ranges.insert(ranges.end(), wanted.begin(), wanted.end());
      if (ranges.size() >= kSearchedBlocks) break;
    }
    if (ranges.empty()) continue;
    seen.insert(files->status(index).device);
    try {
      const KeepingCheck found = check_keeping(io, *files->acquire(index), ranges);
      if (keeps_nothing(found.keeping)) return found;
      if (found.keeping == Keeping::unknown) worst.keeping = found.keeping;
      worst.read_bytes += found.read_bytes;
    } catch (const IoException&) {
      worst.keeping = Keeping::unknown;
    }
  }
  return worst;
}

bool Engine::State::is_in_vain() const {
  const std::lock_guard lock(mutex);
  return keeping && keeps_nothing(*keeping);
}

Keeping Engine::keeping(const std::function<void()>& between) {
  State& state = *state_;
  if (state.process != ::getpid()) return Keeping::unknown;
  std::unique_lock lock(state.mutex);
  if (!state.trial_begun && state.running == 0) {
    // No worker, hence no trial: its share of the blocks is empty. A thread that can be left
    // behind.
    try {
      const SignalsBlocked blocked;
      state.runtime.start_thread("shardahead-try", [kept = state_] { kept->try_mounts(); });
    } catch (const std::system_error&) {
      return Keeping::unknown;
    }
  }
  lock.unlock();
  state.wait_for_trial(kConsumerTrialPatience, between);
  lock.lock();
  return state.keeping.value_or(Keeping::unknown);
}

}  // namespace shardahead
