#include "node/io_priority.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace shardahead {
namespace {

// As linux/ioprio.h has them, which old headers lack.
constexpr int kWhoProcess = 1;  // a thread, in spite of its name; 0 is the calling one
constexpr unsigned kClassShift = 13;
constexpr unsigned kBestEffort = 2;
constexpr unsigned kIdle = 3;
constexpr unsigned kLeast = 7;

int set(unsigned io_class, unsigned level) noexcept {
  const unsigned priority = (io_class << kClassShift) | level;
  return ::syscall(SYS_ioprio_set, kWhoProcess, 0, priority) < 0 ? -errno : 0;
}

}  // namespace

int lower_io_priority() noexcept { return set(kIdle, 0) == 0 ? 0 : set(kBestEffort, kLeast); }

const char* io_priority_class() noexcept {
  const long found = ::syscall(SYS_ioprio_get, kWhoProcess, 0);
  if (found < 0) return "unknown";
  switch (static_cast<unsigned>(found) >> kClassShift) {
    case 0: return "none";
    case 1: return "realtime";
    case kBestEffort: return "best_effort";
    case kIdle: return "idle";
    default: return "unknown";
  }
}

}  // namespace shardahead
