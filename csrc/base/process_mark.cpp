#include "base/process_mark.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>

namespace shardahead {
namespace {

// On the way from the first process to this one. Relaxed: only fork changes it, in a process that
// has one thread.
std::atomic<std::uint64_t> forks{0};

// When the library is loaded: later, a fork might come between.
const int watched =
    ::pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });

}  // namespace

ProcessMark::ProcessMark() noexcept
    : process_(::getpid()), forks_(forks.load(std::memory_order_relaxed)) {
  static_cast<void>(watched);  // process ids tell most of it where there was no memory
}

bool ProcessMark::is_here() const noexcept {
  return forks_ == forks.load(std::memory_order_relaxed) && process_ == ::getpid();
}

}  // namespace shardahead
