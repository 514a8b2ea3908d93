#include "engine.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

#include "fetch.h"
#include "window.h"

namespace shardahead {

using Clock = std::chrono::steady_clock;

namespace {

constexpr std::uint64_t kNoLimit = std::numeric_limits<std::uint64_t>::max();
// How often a worker that finds nothing to do looks for claims of the dead.
constexpr auto kRecoveryInterval = std::chrono::milliseconds(100);
// After this long without any change on the board a claim of the living is taken over: its owner
// may be stopped, or sit in a read that never ends.
constexpr auto kStallTime = std::chrono::seconds(10);

double thread_cpu_seconds() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Signals belong to the program, not to our threads: a new thread inherits the mask of its creator.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace

// Owned by the engine and by each of its workers: the last one out takes it down.
struct Engine::State {
  State(FileIo& file_io, std::shared_ptr<const Plan> the_plan, std::shared_ptr<FileTable> table,
        std::unique_ptr<Claims> the_claims, const EngineOptions& the_options)
      : io(file_io),
        plan(std::move(the_plan)),
        files(std::move(table)),
        options(the_options),
        claims(std::move(the_claims)) {
    for (const std::uint32_t index : claims->wanted()) {
      figures.planned_bytes += plan->wanted_bytes(plan->blocks()[index]);
    }
    figures.strategy = to_string(options.strategy);
  }

  FileIo& io;
  const std::shared_ptr<const Plan> plan;
  const std::shared_ptr<FileTable> files;
  const EngineOptions options;
  const pid_t process = ::getpid();
  const Clock::time_point started = Clock::now();
  StepTable steps;
  // Read by fetchers between system calls; set once. It orders nothing: relaxed is enough.
  std::atomic<bool> cancelled{false};
  const std::atomic<bool> never_cancelled{false};

  mutable std::mutex mutex;  // guards everything below, save what claims does for itself
  std::condition_variable ended_or_left;
  // Given up when the last worker has ended and no consumer reports any more: the board is left.
  std::shared_ptr<Claims> claims;
  std::uint32_t running = 0;
  ConsumerPosition consumer;
  Clock::time_point last_change = Clock::now();
  Clock::time_point last_recovery = Clock::now();
  Report figures;
  Clock::time_point ended;

  void work(Claims& shared);
  bool work_once(Fetcher& fetcher, Claims& shared);
  void wait_for_change(Claims& shared, std::uint32_t seen);
  Outcome fetch_block(Fetcher& fetcher, const Claim& claim, std::uint64_t& read_bytes);
  void add(const FetchResult& result);
  void leave();
  void leave_claims();
  void give_up_claims();
  [[nodiscard]] Report current() const;
  [[nodiscard]] std::uint64_t limit() const;
  [[nodiscard]] double seconds() const;
};

std::uint64_t Engine::State::limit() const {
  const std::lock_guard lock(mutex);
  return window_end(options.window_bytes, consumer);
}

void Engine::State::work(Claims& shared) {
  Fetcher fetcher(io, steps, options.strategy, cancelled);
  double counted_seconds = 0;
  for (bool more = true; more;) {
    more = work_once(fetcher, shared);
    const double cpu_seconds = thread_cpu_seconds();
    const std::lock_guard lock(mutex);
    figures.cpu_seconds += cpu_seconds - counted_seconds;
    counted_seconds = cpu_seconds;
  }
  leave();
}

// Takes one block, or waits for one. False at the end.
bool Engine::State::work_once(Fetcher& fetcher, Claims& shared) {
  const std::uint32_t seen = doorbell_seen(shared.doorbell());
  if (cancelled.load(std::memory_order_relaxed)) return false;
  const std::uint64_t end = limit();
  if (const auto claim = shared.take(end)) {
    std::uint64_t read_bytes = 0;
    const Outcome outcome = fetch_block(fetcher, *claim, read_bytes);
    shared.settle(*claim, outcome, read_bytes);
    return true;
  }
  // Without a consumer nothing moves the window: its end is the end.
  if (shared.settled(options.consumer ? kNoLimit : end)) return false;
  wait_for_change(shared, seen);
  return true;
}

void Engine::State::wait_for_change(Claims& shared, std::uint32_t seen) {
  wait_for_ring(shared.doorbell(), seen, kRecoveryInterval);
  bool stalled = false;
  {
    const std::lock_guard lock(mutex);
    const auto now = Clock::now();
    if (doorbell_seen(shared.doorbell()) != seen) last_change = now;
    if (now - last_recovery < kRecoveryInterval) return;
    last_recovery = now;
    stalled = now - last_change > kStallTime;
    if (stalled) last_change = now;
  }
  shared.recover(stalled);
}

Outcome Engine::State::fetch_block(Fetcher& fetcher, const Claim& claim,
                                   std::uint64_t& read_bytes) {
  const Block& block = plan->blocks()[claim.block];
  std::shared_ptr<const File> file;
  try {
    file = files->acquire(block.file);
  } catch (const IoException& exception) {
    FetchResult result;
    result.failed_bytes = plan->wanted_bytes(block);
    result.error = exception.error();
    result.error->offset = block.range.offset;
    add(result);
    return Outcome::failed;
  }
  Outcome outcome = Outcome::done;
  std::uint64_t wanted_bytes = plan->wanted_bytes(block);
  for (const ByteRange& range : claim.whole ? std::vector{block.range} : plan->wanted(block)) {
    FetchResult result = fetcher.fetch(*file, range);
    read_bytes += result.read_bytes;
    // The fetcher rounds outwards to pages, and may fetch for others; the plan counts what this
    // participant asked for.
    const std::uint64_t counted = std::min(wanted_bytes, range.length);
    wanted_bytes -= counted;
    result.resident_bytes = std::min(result.resident_bytes, counted);
    result.read_bytes = std::min(result.read_bytes, counted - result.resident_bytes);
    result.failed_bytes =
        std::min(result.failed_bytes, counted - result.resident_bytes - result.read_bytes);
    result.lost_bytes = std::min(result.lost_bytes, result.read_bytes);
    add(result);
    if (result.cancelled) return Outcome::released;
    if (result.error) outcome = Outcome::failed;
  }
  return outcome;
}

void Engine::State::add(const FetchResult& result) {
  const std::lock_guard lock(mutex);
  last_change = Clock::now();
  figures.resident_bytes += result.resident_bytes;
  figures.read_bytes += result.read_bytes;
  figures.lost_bytes += result.lost_bytes;
  figures.failed_bytes += result.failed_bytes;
  if (!result.error) return;
  ++figures.error_count;
  if (figures.errors.size() < Report::kMaxErrors) figures.errors.push_back(*result.error);
}

void Engine::State::leave() {
  const std::lock_guard lock(mutex);
  if (--running == 0) {
    ended = Clock::now();
    leave_claims();
  }
  ended_or_left.notify_all();
}

// Called with the mutex locked. A consumer that still reports keeps its place.
void Engine::State::leave_claims() {
  if (running > 0) return;
  if (options.consumer && !cancelled.load(std::memory_order_relaxed)) return;
  give_up_claims();
}

// Called with the mutex locked. What the others did is of the past from now on.
void Engine::State::give_up_claims() {
  figures = current();
  claims.reset();
}

// Called with the mutex locked. The figures of this participant with those of the others.
Report Engine::State::current() const {
  Report report = figures;
  if (!claims) return report;
  const SharedFigures shared = claims->shared();
  report.shared_bytes += shared.done_bytes;
  report.inflight_bytes = claims->inflight_bytes();
  report.failed_bytes += shared.failed_bytes;
  return report;
}

double Engine::State::seconds() const {
  const auto until = running == 0 ? ended : Clock::now();
  return std::chrono::duration<double>(until - started).count();
}

Engine::Engine(FileIo& io, std::shared_ptr<const Plan> plan, std::shared_ptr<FileTable> files,
               std::unique_ptr<Claims> claims, const EngineOptions& options) {
  if (options.threads < 1 || options.threads > kMaxThreads) {
    throw std::invalid_argument("threads must be between 1 and 256, not " +
                                std::to_string(options.threads));
  }
  state_ =
      std::make_shared<State>(io, std::move(plan), std::move(files), std::move(claims), options);
  State& state = *state_;
  const auto wanted = std::min<std::size_t>(options.threads, state.claims->wanted().size());
  const SignalsBlocked blocked;
  const std::lock_guard lock(state.mutex);
  state.ended = state.started;
  try {
    for (std::size_t i = 0; i < wanted; ++i) {
      // Detached, because a join could wait for a dead server for ever. The engine still owns them:
      // it counts them in and out, and cancels them when it goes.
      std::thread worker([state = state_, shared = state.claims, i] {
        const std::string name = "shardahead-" + std::to_string(i);
        ::pthread_setname_np(::pthread_self(), name.c_str());
        state->work(*shared);
      });
      ++state.running;
      worker.detach();
    }
  } catch (const std::system_error& exception) {
    // Fewer threads do the same work. None at all is a prefetch that failed, and says so.
    state.figures.error_count += state.running == 0 ? 1 : 0;
    if (state.running == 0) {
      state.figures.errors.push_back({exception.code().value(), "pthread_create", "", 0, ""});
    }
  }
  state.figures.threads = state.running;
  state.leave_claims();  // for want of work or of threads
}

Engine::~Engine() { cancel(); }

bool Engine::wait(std::chrono::nanoseconds timeout) {
  if (state_->process != ::getpid()) return true;
  std::unique_lock lock(state_->mutex);
  // wait_for adds the time to a clock, where "for ever" would wrap around.
  const auto bounded = std::min<std::chrono::nanoseconds>(timeout, std::chrono::hours(24 * 365));
  return state_->ended_or_left.wait_for(lock, bounded, [&] { return state_->running == 0; });
}

void Engine::cancel() {
  // A forked child has none of the threads, and perhaps a mutex that one of them held.
  if (state_->process != ::getpid()) return;
  const std::lock_guard lock(state_->mutex);
  if (state_->running > 0) {
    state_->cancelled.store(true, std::memory_order_relaxed);
    ring(state_->claims->doorbell());
  } else {
    state_->give_up_claims();
  }
}

bool Engine::done() const {
  if (state_->process != ::getpid()) return true;
  const std::lock_guard lock(state_->mutex);
  return state_->running == 0;
}

bool Engine::cancelled() const { return state_->cancelled.load(std::memory_order_relaxed); }

Progress Engine::progress() const {
  if (state_->process != ::getpid()) return {};
  const std::lock_guard lock(state_->mutex);
  const Report report = state_->current();
  return {report.planned_bytes, report.settled_bytes(), state_->seconds()};
}

Report Engine::report() const {
  if (state_->process != ::getpid()) return {};
  const std::lock_guard lock(state_->mutex);
  Report report = state_->current();
  const Step step = state_->steps.first();
  report.step_bytes = step.bytes;
  report.step_source = to_string(step.source);
  report.strategy_used = report.strategy;
  if (state_->options.strategy == Strategy::automatic) {
    report.strategy_used = to_string(step.advice_works ? Strategy::fadvise : Strategy::pread);
  }
  report.seconds = state_->seconds();
  report.done = state_->running == 0;
  report.cancelled = cancelled();
  report.left_out_bytes = report.done ? report.planned_bytes - report.settled_bytes() : 0;
  return report;
}

void Engine::consumed(std::uint64_t position_bytes, std::uint64_t needed_bytes) {
  if (state_->process != ::getpid()) return;
  const std::lock_guard lock(state_->mutex);
  ConsumerPosition& consumer = state_->consumer;
  consumer.consumed_bytes = std::max(consumer.consumed_bytes, position_bytes);
  consumer.needed_bytes = std::max(consumer.needed_bytes, needed_bytes);
  if (state_->claims && state_->options.window_bytes > 0) ring(state_->claims->doorbell());
}

std::optional<IoError> Engine::fetch_now(std::size_t file, ByteRange range) {
  State& state = *state_;
  try {
    // A forked child must not wait for a mutex that a thread of its parent held: neither that of
    // the files nor that of the steps.
    const bool forked = state.process != ::getpid();
    const auto opened =
        forked ? File::open(state.io, state.files->path(file)) : state.files->acquire(file);
    StepTable own_steps;
    Fetcher fetcher(state.io, forked ? own_steps : state.steps, Strategy::automatic,
                    state.never_cancelled);
    return fetcher.fetch_pipelined(*opened, range).error;
  } catch (const IoException& exception) {
    return exception.error();
  }
}

}  // namespace shardahead
