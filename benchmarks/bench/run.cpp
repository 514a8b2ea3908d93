#include "run.h"

#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <initializer_list>

#include "board/claims.h"
#include "engine/engine.h"
#include "units.h"

namespace shardahead::bench {
namespace {

using Clock = std::chrono::steady_clock;

// How soon a signal is seen, and how long the threads may take to end after it.
constexpr auto kSignalInterval = std::chrono::milliseconds(50);
constexpr auto kCancelTime = std::chrono::milliseconds(300);
// Then it is a call that a server does not answer.
constexpr unsigned kPatienceSeconds = 2;
constexpr int kSignalled = 128;

// Handlers write it, one at a time, and nothing depends on what was written before: relaxed is
// enough.
std::atomic<int> signal_seen{0};
static_assert(std::atomic<int>::is_always_lock_free);

double process_cpu_seconds() noexcept {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

}  // namespace

void remember_signals() {
  struct sigaction action{};
  action.sa_handler = [](int signal) {
    const int before = signal_seen.load(std::memory_order_relaxed);
    if (before != 0) ::_exit(kSignalled + (signal == SIGALRM ? before : signal));
    signal_seen.store(signal, std::memory_order_relaxed);
    ::alarm(kPatienceSeconds);
  };
  action.sa_flags = SA_RESTART;
  sigfillset(&action.sa_mask);
  sigaction(SIGALRM, &action, nullptr);
  for (const int signal : {SIGHUP, SIGINT, SIGTERM}) {
    struct sigaction set{};
    sigaction(signal, nullptr, &set);
    if (set.sa_handler != SIG_IGN) sigaction(signal, &action, nullptr);
  }
}

int signal_that_came() noexcept { return signal_seen.load(std::memory_order_relaxed); }

void signals_are_over() noexcept { ::alarm(0); }

std::string describe(const IoError& error) {
  std::string text = error.operation + " " + quoted_name(error.path);
  if (error.offset > 0) text += " at offset " + std::to_string(error.offset);
  return text + ": " + error.message();
}

Run run_once(const Workload& workload, const Setting& setting, const RequestCounters& counters) {
  EngineOptions options;
  options.tries_mounts = false;  // what is measured is reading, also where it is in vain
  options.strategy = setting.strategy;
  options.threads = setting.threads;
  PlanOptions plan_options;
  plan_options.block_bytes = setting.block_bytes;
  const auto paths = workload.paths();

  Run run;
  const auto requests_before = counters.read();
  const double cpu_before = process_cpu_seconds();
  const auto started = Clock::now();
  run.files = std::make_shared<FileTable>(system_file_io(), paths, default_max_open_files());
  const auto plan = std::make_shared<const Plan>(planned_files(workload), plan_options);
  auto claims = std::make_unique<StaticClaims>(plan, share_of(*plan, Partition::block, 0, 1));
  Engine engine(system_file_io(), plan, run.files, std::move(claims), options);
  while (!engine.wait(kSignalInterval)) {
    if (signal_that_came() == 0) continue;
    run.interrupted = true;
    engine.cancel();
    engine.wait(kCancelTime);
    break;
  }
  run.seconds = std::chrono::duration<double>(Clock::now() - started).count();
  run.cpu_seconds = process_cpu_seconds() - cpu_before;
  run.requests = RequestCounters::between(requests_before, counters.read());
  run.report = engine.report();
  return run;
}

}  // namespace shardahead::bench
