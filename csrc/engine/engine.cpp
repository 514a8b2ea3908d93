#include "engine/engine.h"

#include <algorithm>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/signals_blocked.h"
#include "board/patience.h"
#include "engine/engine_state.h"
#include "engine/load_limit.h"
#include "engine/noting.h"
#include "engine/trial_alone.h"
#include "engine/worker.h"

namespace shardahead {
namespace {

// A trial that sits in a read holds up the consumer for so long.
constexpr auto kConsumerTrialPatience = std::chrono::seconds(10);

std::optional<Keeping> verdict(const EngineState& state) {
  const auto claims = state.crew.claims();
  return state.trial.verdict(claims.get());
}

bool has_failed(const EngineState& state, BlockRange blocks) {
  // The claims first: once they are given up the tally knows what they knew.
  const auto claims = state.crew.claims();
  if (state.tally.has_failed(blocks)) return true;
  const auto standing = claims ? claims->standing(blocks) : std::nullopt;
  return standing && standing->failed;
}

// The prefetch has come to its end, and has left nothing out.
bool all_settled(const EngineState& state) {
  const Crew::Status status = state.crew.status();
  return status.running == 0 && state.job.options.consumer && state.tally.threads() > 0 &&
         !state.crew.is_cancelled() && !state.trial.is_in_vain(status.claims.get());
}

// What had been brought in, and was not there when the consumer came for it.
void count_refetched(EngineState& state, const FetchResult& result) {
  if (result.read_bytes == 0 || !result.residency_known) return;
  state.tally.add_refetched(result.read_bytes);
  state.ahead.add_evicted(result.read_bytes);
}

// What is not settled counts as read, and is paid for, when a worker comes to it: where it was
// noted what was there before.
void charge_consumer(EngineState& state, std::uint32_t block, bool settled,
                     const FetchResult& result) {
  if (!state.pace.limits()) return;
  const auto claims = state.crew.claims();
  const bool paid_later = !settled && claims && claims->noted_resident(block).has_value();
  if (!paid_later) state.pace.charge(claims.get(), result.read_bytes);
}

// What a thread of its own reads for a consumer, and how that ended.
struct Errand {
  DoorbellWord ended{0};
  std::optional<IoError> error;
};

constexpr std::uint64_t kMadeResidentAtOnceBytes = 64 * kMiB;  // between two looks of `between`

// The first error.
std::optional<IoError> for_each_range(
    const ByteRuns& runs, std::uint64_t offset,
    const std::function<std::optional<IoError>(ByteRange)>& call) {
  std::optional<IoError> error;
  for (const ByteRange& range : runs.ranges()) {
    for_each_step({offset + range.offset, range.length}, kMadeResidentAtOnceBytes,
                  [&](ByteRange step) {
                    error = call(step);
                    return !error;
                  });
    if (error) break;
  }
  return error;
}

// On a thread of its own, so that the caller can leave, by what `between` throws.
template <typename Read>
std::optional<IoError> read_beside(Runtime& runtime, const Read& read, const Between& between) {
  std::shared_ptr<Errand> errand;
  try {
    errand = std::make_shared<Errand>();
    const SignalsBlocked blocked;
    runtime.start_thread("shardahead-read", [errand, read] {
      errand->error = read();
      ring(errand->ended);
    });
  } catch (const std::exception&) {
    return read();  // no threads, or no memory for one
  }
  for (;;) {
    runtime.wait_for_ring(errand->ended, 0, kConsumerSlice);
    if (doorbell_seen(errand->ended) != 0) return std::move(errand->error);
    between();
  }
}

// How far behind `position` a tensor that is still held is not waited for: by more than the window
// is long there.
std::uint64_t straggler_bytes(const Claims* claims, const Window& window, std::uint64_t position) {
  if (window.ahead_bytes == 0) return kNoEnd;
  if (claims == nullptr) return window.ahead_bytes;
  return position - claims->behind(position, window.ahead_bytes);
}

const char* strategy_used(Strategy asked, const Step& step) {
  if (asked != Strategy::automatic && asked != Strategy::populate) return to_string(asked);
  if (step.populate == Populate::works) return to_string(Strategy::populate);
  return to_string(step.advice_works ? Strategy::fadvise : Strategy::pread);
}

// By a forked child, which nobody brings anything in for.
std::shared_ptr<const File> opened_alone(FileIo& io, const std::string& path) {
  auto file = File::open(io, path);
  MappedFile::faults_alone(*file);
  return file;
}

}  // namespace

Engine::Engine(FileIo& io, std::shared_ptr<const Plan> plan, std::shared_ptr<FileTable> files,
               std::unique_ptr<Claims> claims, const EngineOptions& options, Runtime& runtime) {
  if (options.threads < 1 || options.threads > kMaxThreads) {
    throw std::invalid_argument("threads must be between 1 and 256, not " +
                                std::to_string(options.threads));
  }
  const auto workers =
      static_cast<std::uint32_t>(std::min<std::size_t>(options.threads, claims->wanted().size()));
  state_ = std::make_shared<EngineState>(
      Job{io, runtime, std::move(plan), std::move(files), options, {}}, std::move(claims));
  EngineState& state = *state_;
  state.ahead.look_at_memory();
  if (options.consumer) state.crew.claims()->report_consumer({});
  const auto start = [&](std::uint32_t number, const std::shared_ptr<Claims>& shared) {
    try {
      // Detached, because a join could wait for a dead server for ever. The engine still owns them:
      // it counts them in and out, and cancels them when it goes.
      runtime.start_thread(
          "shardahead-" + std::to_string(number),
          [kept = state_, own = shared]() mutable { work(*kept, std::move(own)); });
      return true;
    } catch (const std::exception&) {
      // Fewer threads do the same work. None at all is a prefetch that failed, and says so.
      if (number > 0) return false;
      IoError error = caught_error("pthread_create", "", 0);
      error.detail.clear();
      state.tally.record(std::move(error));
      return false;
    }
  };
  const SignalsBlocked blocked;
  state.tally.set_threads(state.crew.begin(workers, std::cref(start)));
}

Engine::~Engine() { cancel(); }

bool Engine::wait(std::chrono::nanoseconds timeout) {
  return !state_->job.process.is_here() || state_->crew.wait(timeout);
}

void Engine::cancel() {
  // A forked child has none of the threads, and perhaps a mutex that one of them held.
  if (!state_->job.process.is_here()) return;
  state_->crew.cancel();
  state_->behind.mappings().fault_alone();
}

bool Engine::done() const {
  return !state_->job.process.is_here() || state_->crew.status().running == 0;
}

bool Engine::cancelled() const { return state_->crew.is_cancelled(); }

Progress Engine::progress() const {
  if (!state_->job.process.is_here()) return {};
  const Crew::Status status = state_->crew.status();
  const Report report = state_->tally.figures(status.claims.get());
  return {.planned_bytes = report.planned_bytes,
          .done_bytes = report.settled_bytes(),
          .node_read_bytes = report.node_read_bytes,
          .seconds = status.seconds,
          .read_bytes = report.read_bytes,
          .consumed_bytes = state_->ahead.consumer().consumed_bytes,
          .claimed_bytes = state_->tally.claimed_bytes(),
          .window_bytes = state_->ahead.window().ahead_bytes,
          .inflight_bytes = report.inflight_bytes,
          .failed_bytes = report.failed_bytes,
          .limited_by = limit_of(*state_, report, status.seconds)};
}

Report Engine::report() const {
  const EngineState& state = *state_;
  if (!state.job.process.is_here()) return {};
  // Before the figures: of a prefetch that is done these are complete.
  const Crew::Status status = state.crew.status();
  Report report = state.tally.figures(status.claims.get());
  const Step step = state.steps.first();
  report.step_bytes = step.bytes;
  report.step_source = to_string(step.source);
  report.strategy_used = strategy_used(state.job.options.strategy, step);
  report.seconds = status.seconds;
  report.limited_by = limit_of(state, report, status.seconds);
  report.rate_limit_bytes_per_s = state.job.options.rate_limit_bytes_per_s;
  const Window window = state.ahead.window();
  report.window_bytes = window.ahead_bytes;
  report.window_source = to_string(window.source);
  report.keeping = to_string(state.trial.verdict(status.claims.get()).value_or(Keeping::unknown));
  report.done = status.running == 0;
  report.cancelled = cancelled();
  // Cancelled, what is still in flight is not waited for.
  const bool over = report.done || report.cancelled;
  report.left_out_bytes = over ? report.planned_bytes - report.settled_bytes() : 0;
  return report;
}

void Engine::consumed(std::uint64_t position_bytes, std::uint64_t needed_bytes,
                      std::uint64_t releasable_bytes) {
  EngineState& state = *state_;
  if (!state.job.process.is_here()) return;
  const std::shared_ptr<Claims> claims = state.crew.claims();
  const Window window = state.ahead.window();
  const std::uint64_t end = state.job.plan->total_bytes();
  const std::uint64_t passed = std::min(position_bytes, end);
  const ConsumerPosition position = state.behind.consumption()->pass(
      passed, std::min(needed_bytes, end), straggler_bytes(claims.get(), window, passed),
      releasable_bytes);
  const ConsumerPosition before = state.ahead.move_consumer(position);
  if (!claims || !state.job.options.consumer || cancelled()) return;
  // What a process has mapped is not dropped: so first its own hold on it goes.
  if (window.keep_bytes) state.behind.give_up_released(position.released_bytes);
  claims->report_consumer(position);
  Runtime& runtime = state.job.runtime;
  if (window.ahead_bytes > 0) {
    ring_if_opened(runtime, *state.job.plan, *claims, window.ahead_bytes, before, position);
  }
  if (!window.keep_bytes) return;
  state.tally.add_dropped(state.behind.drop(*claims, *window.keep_bytes, runtime.now()));
}

bool Engine::end_consumer() {
  if (!state_->job.process.is_here()) return false;
  const std::shared_ptr<Claims> claims = state_->crew.claims();
  return !claims || claims->end_consumer();
}

Keeping Engine::keeping(const Between& between) {
  EngineState& state = *state_;
  if (!state.job.process.is_here() || !state.job.options.tries_mounts) return Keeping::unknown;
  Runtime& runtime = state.job.runtime;
  const auto began = runtime.now();
  for (;;) {
    const std::uint32_t seen = doorbell_seen(state.trial.bell());
    const auto found = verdict(state);
    const auto waited = runtime.now() - began;
    if (found || cancelled() || waited >= kConsumerTrialPatience) {
      return found.value_or(Keeping::unknown);
    }
    const bool no_worker_tries = done() || (waited >= kConsumerSlice && !state.trial.has_begun());
    if (no_worker_tries && state.trial.begin_alone()) {
      // On a thread that can be left behind.
      try {
        const SignalsBlocked blocked;
        runtime.start_thread("shardahead-try", [kept = state_] { try_alone(*kept); });
      } catch (const std::exception&) {
        return Keeping::unknown;  // no threads, or no memory for one
      }
    }
    runtime.wait_for_ring(state.trial.bell(), seen, kConsumerSlice);
    if (between) between();
  }
}

void Engine::meet(std::uint32_t expected, const Between& between) {
  EngineState& state = *state_;
  if (!state.job.process.is_here()) return;
  // A worker that has a block in hand may still open its file, for the trial of the mount say, and
  // would empty what the others read once they have met. All of them end: it is in vain.
  Runtime& runtime = state.job.runtime;
  const auto until = runtime.now() + kOpeningPatience;
  while (!state.crew.wait_a_moment(kConsumerSlice) && runtime.now() < until) {
    if (between) between();
  }
  state.consumer.meet(state.crew, expected, between);
}

std::shared_ptr<MappedFile> Engine::map(std::size_t file) {
  const Job& job = state_->job;
  // A forked child must not wait for a mutex that a thread of its parent held.
  if (job.process.is_here()) return state_->behind.mappings().map(file);
  return std::make_shared<MappedFile>(*opened_alone(job.io, job.files->path(file)), job.runtime);
}

std::unique_ptr<HeldBytes> Engine::hold(std::size_t file, std::shared_ptr<MappedFile> mapped,
                                        ByteRange range) {
  return hold(file, std::move(mapped), range.offset, ByteRuns(range.length), std::nullopt);
}

std::unique_ptr<HeldBytes> Engine::hold(std::size_t file, std::shared_ptr<MappedFile> mapped,
                                        std::uint64_t offset, const ByteRuns& runs,
                                        const std::optional<std::vector<ByteRange>>& expected) {
  const ByteRange range{offset, runs.extent_bytes()};
  require_within(*mapped, range);
  const Job& job = state_->job;
  const bool forked = !job.process.is_here();
  const auto touched = forked ? nullptr : job.options.touched;
  if (!job.files->status(file).owned_or_writable) {
    for (const ByteRange& part : looked_at(offset, runs, expected)) {
      if (touched) {
        require_readable_untouched(*job.files, file, part);
      } else {
        require_readable(job.io, *job.files, file, *mapped, part);
      }
    }
  }
  return std::make_unique<HeldBytes>(
      std::move(mapped), range, forked ? nullptr : state_->behind.consumption(),
      job.plan->position(static_cast<std::uint32_t>(file), range.offset), touched, file);
}

void Engine::ask_early(std::size_t file, const std::vector<ByteRange>& ranges) {
  const EngineState& state = *state_;
  const Job& job = state.job;
  if (!job.process.is_here() || state.pace.limits()) return;
  const auto claims = state.crew.claims_at_work();
  if (!claims) return;
  ask_for(job.io, *job.plan, *claims, *job.files->acquire(file), static_cast<std::uint32_t>(file),
          ranges);
}

void Engine::tell_misled() {
  if (!state_->job.process.is_here()) return;
  if (const auto claims = state_->crew.claims()) claims->tell_misled();
}

bool Engine::told_misled() const {
  if (!state_->job.process.is_here()) return false;
  const auto claims = state_->crew.claims();
  return claims && claims->told_misled();
}

std::optional<IoError> Engine::make_resident(std::size_t file, ByteRange range,
                                             const Between& between) {
  return make_resident(file, range, Wait::for_blocks, between);
}

std::optional<IoError> Engine::make_resident_now(std::size_t file, ByteRange range,
                                                 const Between& between) {
  return make_resident(file, range, Wait::for_nobody, between);
}

std::optional<IoError> Engine::make_resident(std::size_t file, ByteRange range, Wait wait,
                                             const Between& between) {
  EngineState& state = *state_;
  const Job& job = state.job;
  // A forked child must not wait for a mutex that a thread of its parent held: neither that of the
  // files nor that of the steps. Nor can it know what failed.
  if (!job.process.is_here()) {
    StepTable own_steps;
    const std::string& path = job.files->path(file);
    const auto open = [&] { return opened_alone(job.io, path); };
    return fetch_for_consumer(job.io, own_steps, open, path, range, true).error;
  }
  const BlockRange blocks = job.plan->blocks_under(static_cast<std::uint32_t>(file), range);
  const bool settled =
      wait == Wait::for_blocks && state.consumer.wait_for_blocks(state.crew, blocks, between);
  // Where a block failed, a page that could not be read counts as resident.
  const bool plainly = has_failed(state, blocks);
  const bool was_there = !plainly && (settled || all_settled(state));
  const auto ready = plainly ? false : state.consumer.is_up_to_date(file, range);
  if (ready == true) return std::nullopt;
  const auto read = [kept = state_, file, range, blocks, settled, was_there, plainly] {
    FetchResult result = kept->consumer.fetch(file, range, plainly);
    charge_consumer(*kept, blocks.begin, settled, result);
    if (was_there) count_refetched(*kept, result);
    return std::move(result.error);
  };
  // What is not there may never come: then the caller must be able to leave.
  if (!between || (settled && !ready)) return read();
  return read_beside(job.runtime, read, between);
}

std::optional<IoError> Engine::make_resident(std::size_t file, std::uint64_t offset,
                                             const ByteRuns& runs, const Between& between) {
  const auto bring_in = [&](ByteRange range) { return make_resident(file, range, between); };
  // As they were prefetched.
  if (!for_each_range(runs.joined(kShortGapBytes - 1), offset, bring_in)) return std::nullopt;
  // What stands in the way may lie in a gap.
  return for_each_range(runs.joined(page_bytes() - 1), offset, bring_in);
}

}  // namespace shardahead
