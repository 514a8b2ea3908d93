// What the worker threads of an engine do: take a block, bring it in, settle it, wait for the next.
#include <time.h>

#include <utility>

#include "engine/engine_state.h"

namespace shardahead {
namespace {

// How often a worker that finds nothing to do looks for claims of the dead.
constexpr auto kRecoveryInterval = std::chrono::milliseconds(100);
// After this long without any change on the board the claims of the living are taken over: an owner
// may be stopped, or sit in a read that never ends.
constexpr auto kStallTime = std::chrono::seconds(10);
// Whoever has not looked for this long was at work, or stopped itself, and has not seen a stall.
constexpr auto kBetweenLooks = std::chrono::seconds(1);

double thread_cpu_seconds() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

}  // namespace

// Where claiming ends for now.
std::uint64_t Engine::State::limit() {
  std::shared_ptr<Claims> shared;
  std::uint64_t window_bytes = 0;
  ConsumerPosition position;
  {
    const MutexLock lock(mutex);
    shared = claims;
    window_bytes = control.window().ahead_bytes;
    position = consumer;
  }
  if (window_bytes > 0 && options.consumer && shared) {
    position = shared->slowest_consumer(runtime.now()).value_or(position);
  }
  return window_end(window_bytes, position);
}

// Whatever it meets, it ends in order: the others and the consumer go on without it.
void Engine::State::work(Claims& shared) noexcept {
  try {
    work_to_the_end(shared);
  } catch (...) {
    const MutexLock lock(mutex);
    record(caught_error("work", "", 0));
  }
  leave();
}

void Engine::State::work_to_the_end(Claims& shared) {
  Fetcher fetcher(io, steps, options.strategy, cancelled);
  Lookout::Worker worker(lookout);
  double counted_seconds = 0;
  for (bool more = true; more;) {
    more = work_once(fetcher, shared, worker);
    const double cpu_seconds = thread_cpu_seconds();
    const MutexLock lock(mutex);
    figures.cpu_seconds += cpu_seconds - counted_seconds;
    counted_seconds = cpu_seconds;
  }
}

// Takes one block, or waits for one. False at the end.
bool Engine::State::work_once(Fetcher& fetcher, Claims& shared, Lookout::Worker& worker) {
  worker.look();
  const std::uint32_t seen = doorbell_seen(shared.doorbell());
  if (cancelled.load(std::memory_order_relaxed) || is_in_vain()) return false;
  look_at_memory();
  const std::uint64_t end = limit();
  if (const auto claim = shared.take(end)) {
    worker.work();
    std::uint64_t read_bytes = 0;
    const Outcome outcome = fetch_block(fetcher, *claim, read_bytes);
    shared.settle(*claim, outcome, read_bytes);
    return true;
  }
  // Without a consumer nothing moves the window: its end is the end.
  if (shared.settled(options.consumer ? kNoEnd : end)) return false;
  wait_for_change(shared, seen, worker);
  return true;
}

// The dead are looked for by the one that waits for the doorbell.
void Engine::State::wait_for_change(Claims& shared, std::uint32_t seen, Lookout::Worker& worker) {
  if (!worker.wait(shared.doorbell(), seen, kRecoveryInterval)) return;
  bool stalled = false;
  {
    const MutexLock lock(mutex);
    const auto now = runtime.now();
    // Not that this one was woken by: it may have been at work, or another have listened.
    const std::uint32_t rings = doorbell_seen(shared.doorbell());
    if (rings != last_rings || now - last_recovery > kBetweenLooks) last_change = now;
    last_rings = rings;
    if (now - last_recovery < kRecoveryInterval) return;
    last_recovery = now;
    stalled = now - last_change > kStallTime;
    if (stalled) last_change = now;
  }
  shared.recover(stalled);
}

// A claim is settled in any case: one that stays would hold up all who wait for the block.
Outcome Engine::State::fetch_block(Fetcher& fetcher, const Claim& claim,
                                   std::uint64_t& read_bytes) noexcept {
  const Block& block = plan->blocks()[claim.block];
  try {
    return try_block(fetcher, claim, read_bytes);
  } catch (...) {
    IoError error = caught_error("fetch", files->path(block.file), block.range.offset);
    error.offset = block.range.offset;
    return fail_block(claim.block, std::move(error));
  }
}

Outcome Engine::State::fail_block(std::uint32_t block, IoError error) noexcept {
  FetchResult result;
  result.failed_bytes = plan->wanted_bytes(plan->blocks()[block]);
  result.error = std::move(error);
  const MutexLock lock(mutex);
  last_change = runtime.now();
  if (!counted_blocks[block]) count(result);
  counted_blocks[block] = true;
  failed_blocks[block] = true;
  record(std::move(*result.error));
  return Outcome::failed;
}

Outcome Engine::State::try_block(Fetcher& fetcher, const Claim& claim, std::uint64_t& read_bytes) {
  const Block& block = plan->blocks()[claim.block];
  const std::shared_ptr<const File> file = files->acquire(block.file);
  const auto ranges = claim.whole ? std::vector{block.range} : plan->wanted(block);
  std::uint64_t tried_bytes = 0;
  if (!try_mount(*file, ranges, tried_bytes)) return Outcome::released;
  Outcome outcome = Outcome::done;
  std::vector<FetchResult> results;
  std::uint64_t wanted_bytes = plan->wanted_bytes(block);
  for (const ByteRange& range : ranges) {
    FetchResult result = fetcher.fetch(*file, range);
    count_tried(result, tried_bytes);
    if (result.advice_dropped) files->renew(block.file, *file);
    read_bytes += result.read_bytes;
    // The plan counts what this participant asked for, range by range.
    const std::uint64_t counted = std::min(wanted_bytes, range.length);
    wanted_bytes -= counted;
    count_at_most(result, counted);
    if (result.error) outcome = Outcome::failed;
    if (result.cancelled) outcome = Outcome::released;
    results.push_back(std::move(result));
    if (outcome == Outcome::released) break;
  }
  add(claim.block, std::move(results));
  if (outcome == Outcome::failed) record_failure(claim.block);
  return outcome;
}

void Engine::State::record_failure(std::uint32_t block) noexcept {
  const MutexLock lock(mutex);
  failed_blocks[block] = true;
}

void Engine::State::add(std::uint32_t block, std::vector<FetchResult> results) {
  const MutexLock lock(mutex);
  last_change = runtime.now();
  // A claim that was taken over may have come back to another of these threads.
  const bool again = counted_blocks[block];
  counted_blocks[block] = true;
  for (FetchResult& result : results) {
    if (!again) count(result);
    if (result.error) record(std::move(*result.error));
  }
}

void Engine::State::count(const FetchResult& result) {
  figures.resident_bytes += result.resident_bytes;
  figures.read_bytes += result.read_bytes;
  figures.lost_bytes += result.lost_bytes;
  figures.failed_bytes += result.failed_bytes;
}

// Into memory that is there already.
void Engine::State::record(IoError error) noexcept {
  ++figures.error_count;
  if (figures.errors.size() < Report::kMaxErrors) figures.errors.push_back(std::move(error));
}

void Engine::State::leave() noexcept {
  const MutexLock lock(mutex);
  if (--running == 0) {
    ended = runtime.now();
    leave_claims();
  }
  ended_or_left.notify_all();
}

// A consumer that still reports keeps its place.
void Engine::State::leave_claims() noexcept {
  if (running > 0) return;
  if (options.consumer && !cancelled.load(std::memory_order_relaxed)) return;
  give_up_claims();
}

// What the others did is of the past from now on.
void Engine::State::give_up_claims() noexcept {
  if (!claims) return;
  for (const std::uint32_t block : claims->wanted()) {
    const auto standing = claims->standing({block, block + 1});
    if (standing && standing->failed) failed_blocks[block] = true;
  }
  if (keeps_nothing(claims->told_keeping())) told_keeping = claims->told_keeping();
  add_shared(figures);
  claims.reset();
}

// The figures of this participant with those of the others.
Report Engine::State::current() const {
  Report report = figures;
  add_shared(report);
  return report;
}

void Engine::State::add_shared(Report& report) const noexcept {
  if (!claims) return;
  const SharedFigures shared = claims->shared();
  report.shared_bytes += shared.done_bytes;
  report.inflight_bytes = claims->inflight_bytes();
  report.failed_bytes += shared.failed_bytes;
}

double Engine::State::seconds() const {
  const auto until = running == 0 ? ended : runtime.now();
  return std::chrono::duration<double>(until - started).count();
}

}  // namespace shardahead
