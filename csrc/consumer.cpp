// How a consumer waits for its bytes, and reads them where waiting is in vain.
#include <unistd.h>

#include <future>
#include <system_error>
#include <thread>

#include "engine_state.h"
#include "residency.h"
#include "signals_blocked.h"

namespace shardahead {
namespace {

// How often a waiting consumer looks up.
constexpr auto kConsumerSlice = std::chrono::milliseconds(50);
constexpr auto kRecoveryAfter = std::chrono::milliseconds(200);

}  // namespace

template <typename Open>
std::optional<IoError> Engine::State::fetch_now(const Open& open, StepTable& the_steps,
                                                ByteRange range, bool plainly) {
  try {
    Fetcher fetcher(io, the_steps, Strategy::automatic, never_cancelled);
    const auto file = open();
    return (plainly ? fetcher.read_plainly(*file, range) : fetcher.fetch_pipelined(*file, range))
        .error;
  } catch (const IoException& exception) {
    return exception.error();
  }
}

std::optional<IoError> Engine::fetch_now(std::size_t file, ByteRange range,
                                         const Between& between) {
  State& state = *state_;
  // A forked child must not wait for a mutex that a thread of its parent held: neither that of the
  // files nor that of the steps. Nor can it know what failed.
  if (state.process != ::getpid()) {
    StepTable own_steps;
    return state.fetch_now([&] { return File::open(state.io, state.files->path(file)); }, own_steps,
                           range, true);
  }
  const BlockRange blocks = state.plan->blocks_under(static_cast<std::uint32_t>(file), range);
  const bool settled = wait_for_blocks(blocks, between);
  // Where a block failed, a page that could not be read counts as resident.
  const auto fetch = [kept = state_, file, range, plainly = state.has_failed(blocks)] {
    return kept->fetch_now([&] { return kept->files->acquire(file); }, kept->steps, range, plainly);
  };
  // What was given up may never come: a thread of its own reads it, so that the caller can leave.
  if (!between || settled || state.is_resident(file, range)) return fetch();
  const auto task = std::make_shared<std::packaged_task<std::optional<IoError>()>>(fetch);
  auto result = task->get_future();
  try {
    const SignalsBlocked blocked;
    std::thread([task] { (*task)(); }).detach();
  } catch (const std::system_error&) {
    return fetch();
  }
  while (result.wait_for(kConsumerSlice) != std::future_status::ready) between();
  return result.get();
}

bool Engine::State::has_failed(BlockRange blocks) const {
  const std::lock_guard lock(mutex);
  const auto found = failed_blocks.lower_bound(blocks.begin);
  if (found != failed_blocks.end() && *found < blocks.end) return true;
  const auto standing = claims ? claims->standing(blocks) : std::nullopt;
  return standing && standing->failed;
}

bool Engine::State::is_resident(std::size_t file, ByteRange range) const {
  try {
    const auto opened = files->acquire(file);
    const ByteRange within = intersect(range, {0, opened->status().size_bytes});
    return residency(io, *opened, within).resident_bytes == within.length;
  } catch (const IoException&) {
    return false;
  }
}

// True once all are settled; false where that is not known, or where they do not move.
bool Engine::wait_for_blocks(BlockRange blocks, const Between& between) {
  State& state = *state_;
  std::optional<Patience::Wait> wait;
  for (;;) {
    std::shared_ptr<Claims> shared;
    {
      const std::lock_guard lock(state.mutex);
      if (state.running == 0 || cancelled()) return false;
      shared = state.claims;
    }
    const std::uint32_t seen = doorbell_seen(shared->doorbell());
    const auto standing = shared->standing(blocks);
    if (!standing) return false;
    const auto now = Clock::now();
    {
      const std::lock_guard lock(state.mutex);
      if (!wait) wait = state.patience.begin(*standing, seen, now);
      if (!state.patience.go_on(*wait, *standing, seen, now)) return standing->unsettled == 0;
    }
    // Workers look for claims of the dead only when they have nothing else to do.
    if (now - wait->unchanged_since > kRecoveryAfter) shared->recover(false);
    wait_for_ring(shared->doorbell(), seen, kConsumerSlice);
    if (between) between();
  }
}

}  // namespace shardahead
