#include "base/doorbell.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <climits>

namespace shardahead {

namespace {

// std::atomic::wait has no timeout, and is for the threads of one process only.
void wake(DoorbellWord& word, int most) noexcept {
  word.fetch_add(1, std::memory_order_acq_rel);
  ::syscall(SYS_futex, &word, FUTEX_WAKE, most, nullptr, nullptr, 0);
}

}  // namespace

void ring(DoorbellWord& word) noexcept { wake(word, INT_MAX); }

void ring_one(DoorbellWord& word) noexcept { wake(word, 1); }

void ring_unheard(DoorbellWord& word) noexcept { word.fetch_add(1, std::memory_order_acq_rel); }

void wait_for_ring(const DoorbellWord& word, std::uint32_t seen,
                   std::chrono::nanoseconds timeout) noexcept {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(timeout);
  timespec relative{};
  relative.tv_sec = static_cast<time_t>(seconds.count());
  relative.tv_nsec = static_cast<long>((timeout - seconds).count());
  ::syscall(SYS_futex, &word, FUTEX_WAIT, seen, &relative, nullptr, 0);
}

}  // namespace shardahead
