#include "engine.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
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
        std::vector<std::uint32_t> the_share, const EngineOptions& the_options)
      : io(file_io),
        plan(std::move(the_plan)),
        files(std::move(table)),
        share(std::move(the_share)),
        options(the_options) {
    figures.planned_bytes = 0;
    for (const std::uint32_t index : share) {
      figures.planned_bytes += plan->wanted_bytes(plan->blocks()[index]);
    }
    figures.strategy = to_string(options.strategy);
  }

  FileIo& io;
  const std::shared_ptr<const Plan> plan;
  const std::shared_ptr<FileTable> files;
  const std::vector<std::uint32_t> share;
  const EngineOptions options;
  const pid_t process = ::getpid();
  const Clock::time_point started = Clock::now();
  StepTable steps;
  // Read by fetchers between system calls; set once. It orders nothing: relaxed is enough.
  std::atomic<bool> cancelled{false};
  const std::atomic<bool> never_cancelled{false};

  mutable std::mutex mutex;  // guards everything below
  std::condition_variable changed;
  std::size_t next = 0;  // into share
  std::uint32_t running = 0;
  ConsumerPosition consumer;
  Report figures;
  Clock::time_point ended;

  std::optional<Block> claim();
  [[nodiscard]] bool finished() const;
  [[nodiscard]] bool next_inside_window() const;
  void work();
  void fetch_block(Fetcher& fetcher, const Block& block);
  void add(const FetchResult& result);
  void leave(double cpu_seconds);
  [[nodiscard]] double seconds() const;
};

bool Engine::State::finished() const {
  return cancelled.load(std::memory_order_relaxed) || next == share.size() ||
         (!options.consumer && !next_inside_window());
}

bool Engine::State::next_inside_window() const {
  const Block& block = plan->blocks()[share[next]];
  return inside_window(plan->position(block.file, block.range.offset), options.window_bytes,
                       consumer);
}

std::optional<Block> Engine::State::claim() {
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return finished() || next_inside_window(); });
  if (finished()) return std::nullopt;
  return plan->blocks()[share[next++]];
}

void Engine::State::work() {
  Fetcher fetcher(io, steps, options.strategy, cancelled);
  while (const auto block = claim()) fetch_block(fetcher, *block);
  leave(thread_cpu_seconds());
}

void Engine::State::fetch_block(Fetcher& fetcher, const Block& block) {
  std::shared_ptr<const File> file;
  try {
    file = files->acquire(block.file);
  } catch (const IoException& exception) {
    FetchResult result;
    result.failed_bytes = plan->wanted_bytes(block);
    result.error = exception.error();
    result.error->offset = block.range.offset;
    add(result);
    return;
  }
  for (const ByteRange& range : plan->wanted(block)) {
    FetchResult result = fetcher.fetch(*file, range);
    // The fetcher rounds outwards to pages; the plan counts what was asked for.
    result.resident_bytes = std::min(result.resident_bytes, range.length);
    result.read_bytes = std::min(result.read_bytes, range.length - result.resident_bytes);
    result.failed_bytes =
        std::min(result.failed_bytes, range.length - result.resident_bytes - result.read_bytes);
    result.lost_bytes = std::min(result.lost_bytes, result.read_bytes);
    add(result);
    if (result.cancelled) return;
  }
}

void Engine::State::add(const FetchResult& result) {
  const std::lock_guard lock(mutex);
  figures.resident_bytes += result.resident_bytes;
  figures.read_bytes += result.read_bytes;
  figures.lost_bytes += result.lost_bytes;
  figures.failed_bytes += result.failed_bytes;
  if (!result.error) return;
  ++figures.error_count;
  if (figures.errors.size() < Report::kMaxErrors) figures.errors.push_back(*result.error);
}

void Engine::State::leave(double cpu_seconds) {
  const std::lock_guard lock(mutex);
  figures.cpu_seconds += cpu_seconds;
  if (--running == 0) ended = Clock::now();
  changed.notify_all();
}

double Engine::State::seconds() const {
  const auto until = running == 0 ? ended : Clock::now();
  return std::chrono::duration<double>(until - started).count();
}

Engine::Engine(FileIo& io, std::shared_ptr<const Plan> plan, std::shared_ptr<FileTable> files,
               std::vector<std::uint32_t> share, const EngineOptions& options) {
  if (options.threads < 1 || options.threads > kMaxThreads) {
    throw std::invalid_argument("threads must be between 1 and 256, not " +
                                std::to_string(options.threads));
  }
  state_ =
      std::make_shared<State>(io, std::move(plan), std::move(files), std::move(share), options);
  State& state = *state_;
  const auto wanted = std::min<std::size_t>(options.threads, state.share.size());
  const SignalsBlocked blocked;
  const std::lock_guard lock(state.mutex);
  state.ended = state.started;
  try {
    for (std::size_t i = 0; i < wanted; ++i) {
      // Detached, because a join could wait for a dead server for ever. The engine still owns
      // them: it counts them in and out, and cancels them when it goes.
      std::thread worker([state = state_, i] {
        const std::string name = "shardahead-" + std::to_string(i);
        ::pthread_setname_np(::pthread_self(), name.c_str());
        state->work();
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
}

Engine::~Engine() { cancel(); }

bool Engine::wait(std::chrono::nanoseconds timeout) {
  if (state_->process != ::getpid()) return true;
  std::unique_lock lock(state_->mutex);
  // wait_for adds the time to a clock, where "for ever" would wrap around.
  const auto bounded = std::min<std::chrono::nanoseconds>(timeout, std::chrono::hours(24 * 365));
  return state_->changed.wait_for(lock, bounded, [&] { return state_->running == 0; });
}

void Engine::cancel() {
  // A forked child has none of the threads, and perhaps a mutex that one of them held.
  if (state_->process != ::getpid()) return;
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->running > 0) state_->cancelled.store(true, std::memory_order_relaxed);
  }
  state_->changed.notify_all();
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
  const Report& figures = state_->figures;
  return {figures.planned_bytes, figures.resident_bytes + figures.read_bytes + figures.failed_bytes,
          state_->seconds()};
}

Report Engine::report() const {
  if (state_->process != ::getpid()) return {};
  const std::lock_guard lock(state_->mutex);
  Report report = state_->figures;
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
  const std::uint64_t settled = report.resident_bytes + report.read_bytes + report.failed_bytes;
  report.left_out_bytes = report.done ? report.planned_bytes - settled : 0;
  return report;
}

void Engine::consumed(std::uint64_t position_bytes, std::uint64_t needed_bytes) {
  if (state_->process != ::getpid()) return;
  {
    const std::lock_guard lock(state_->mutex);
    ConsumerPosition& consumer = state_->consumer;
    consumer.consumed_bytes = std::max(consumer.consumed_bytes, position_bytes);
    consumer.needed_bytes = std::max(consumer.needed_bytes, needed_bytes);
  }
  state_->changed.notify_all();
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
