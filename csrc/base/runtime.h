// runtime: the seam to the clock and the threads of the process, as file_io is the one to its
// files. The system's implementation is here; tests drive the same code on a clock of their own.
// It decides nothing. Any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "base/doorbell.h"

namespace shardahead {

// Of one prefetch, or of one load in mode pread.
inline constexpr std::uint32_t kMaxThreads = 256;

class Runtime {
 public:
  using Time = std::chrono::steady_clock::time_point;

  Runtime() = default;
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
  virtual ~Runtime() = default;

  virtual Time now() noexcept = 0;
  // What the calling thread has used of a processor.
  [[nodiscard]] virtual std::chrono::nanoseconds thread_cpu_time() noexcept;
  // As wait_for_ring of doorbell.h.
  virtual void wait_for_ring(const DoorbellWord& word, std::uint32_t seen,
                             std::chrono::nanoseconds timeout) noexcept = 0;
  // As those of doorbell.h.
  virtual void ring_one(DoorbellWord& word) noexcept { shardahead::ring_one(word); }
  virtual void ring_unheard(DoorbellWord& word) noexcept { shardahead::ring_unheard(word); }
  // A thread that no one joins. Throws std::system_error or std::bad_alloc where there can be none.
  // What `body` throws ends the thread, and nothing else.
  virtual void start_thread(const std::string& name, std::function<void()> body) = 0;
};

// Stateless and never destroyed: threads may still be in it while the process exits.
Runtime& system_runtime() noexcept;

}  // namespace shardahead
