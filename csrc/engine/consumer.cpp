// How a consumer waits for its bytes, and reads them where waiting is in vain; and for others that
// would empty what it reads.
#include <exception>
#include <utility>

#include "base/signals_blocked.h"
#include "engine/engine_state.h"
#include "node/residency.h"

namespace shardahead {
namespace {

constexpr auto kRecoveryAfter = std::chrono::milliseconds(200);

// What a thread of its own reads for a consumer, and how that ended.
struct Errand {
  DoorbellWord ended{0};
  std::optional<IoError> error;
};

}  // namespace

std::optional<IoError> Engine::fetch_now(std::size_t file, ByteRange range,
                                         const Between& between) {
  State& state = *state_;
  // A forked child must not wait for a mutex that a thread of its parent held: neither that of the
  // files nor that of the steps. Nor can it know what failed.
  if (!state.process.is_here()) {
    StepTable own_steps;
    return state
        .fetch_now([&] { return File::open(state.io, state.files->path(file)); },
                   state.files->path(file), own_steps, range, true)
        .error;
  }
  const BlockRange blocks = state.plan->blocks_under(static_cast<std::uint32_t>(file), range);
  const bool settled = wait_for_blocks(blocks, between);
  // Where a block failed, a page that could not be read counts as resident.
  const bool plainly = state.has_failed(blocks);
  const bool was_there = !plainly && (settled || state.all_settled());
  const auto ready = plainly ? false : state.is_up_to_date(file, range);
  if (ready == true) return std::nullopt;
  const auto fetch = [kept = state_, file, range, was_there, plainly] {
    FetchResult result = kept->fetch_now([&] { return kept->files->acquire(file); },
                                         kept->files->path(file), kept->steps, range, plainly);
    if (was_there) kept->count_refetched(result);
    return std::move(result.error);
  };
  // What is not there may never come: a thread of its own reads it, so that the caller can leave.
  if (!between || (settled && !ready)) return fetch();
  std::shared_ptr<Errand> errand;
  try {
    errand = std::make_shared<Errand>();
    const SignalsBlocked blocked;
    state.runtime.start_thread("shardahead-read", [errand, fetch] {
      errand->error = fetch();
      ring(errand->ended);
    });
  } catch (const std::exception&) {
    return fetch();  // no threads, or no memory for one
  }
  for (;;) {
    state.runtime.wait_for_ring(errand->ended, 0, kConsumerSlice);
    if (doorbell_seen(errand->ended) != 0) return std::move(errand->error);
    between();
  }
}

void Engine::meet(std::uint32_t expected, const Between& between) {
  State& state = *state_;
  if (!state.process.is_here()) return;
  std::shared_ptr<Claims> shared;
  {
    const MutexLock lock(state.mutex);
    shared = state.claims;
  }
  if (!shared) return;
  shared->tell_opened();
  const auto began = state.runtime.now();
  while (!cancelled()) {
    const std::uint32_t seen = doorbell_seen(shared->doorbell());
    const auto meeting = shared->meeting();
    if (!meeting || !waits_for_others(*meeting, expected, state.runtime.now() - began)) return;
    state.runtime.wait_for_ring(shared->doorbell(), seen, kConsumerSlice);
    if (between) between();
  }
}

bool Engine::State::all_settled() const {
  const MutexLock lock(mutex);
  return running == 0 && options.consumer && figures.threads > 0 &&
         !cancelled.load(std::memory_order_relaxed) &&
         !keeps_nothing(verdict().value_or(Keeping::unknown));
}

// What had been brought in, and was not there when the consumer came for it.
void Engine::State::count_refetched(const FetchResult& result) {
  if (result.read_bytes == 0 || !result.residency_known) return;
  const MutexLock lock(mutex);
  figures.refetched_bytes += result.read_bytes;
  control.add_evicted(result.read_bytes, runtime.now());
}

bool Engine::State::has_failed(BlockRange blocks) const {
  const MutexLock lock(mutex);
  for (std::uint32_t block = blocks.begin; block < blocks.end; ++block) {
    if (failed_blocks[block]) return true;
  }
  const auto standing = claims ? claims->standing(blocks) : std::nullopt;
  return standing && standing->failed;
}

// Nothing where it is not known. Never waits: a file that is not open, whose open() might, is none.
std::optional<bool> Engine::State::is_up_to_date(std::size_t file, ByteRange range) const {
  const auto opened = files->opened(file);
  if (!opened || range.end() > opened->status().size_bytes) return false;
  const auto bytes = up_to_date_bytes(io, *opened, range);
  return bytes ? std::optional(*bytes == range.length) : std::nullopt;
}

// True once all are settled; false where that is not known, or where they do not move.
bool Engine::wait_for_blocks(BlockRange blocks, const Between& between) {
  State& state = *state_;
  std::optional<Patience::Wait> wait;
  for (;;) {
    std::shared_ptr<Claims> shared;
    {
      const MutexLock lock(state.mutex);
      if (state.running == 0 || cancelled()) return false;
      shared = state.claims;
    }
    const std::uint32_t seen = doorbell_seen(shared->doorbell());
    const auto standing = shared->standing(blocks);
    if (!standing) return false;
    const auto now = state.runtime.now();
    {
      const MutexLock lock(state.mutex);
      if (!wait) wait = state.patience.begin(*standing, seen, now);
      if (!state.patience.go_on(*wait, *standing, seen, now)) return standing->unsettled == 0;
    }
    // Workers look for claims of the dead only when they have nothing else to do.
    if (now - wait->unchanged_since > kRecoveryAfter) shared->recover(false);
    state.runtime.wait_for_ring(shared->doorbell(), seen, kConsumerSlice);
    if (between) between();
  }
}

}  // namespace shardahead
