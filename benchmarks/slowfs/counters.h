// counters: what was served since the last reset. Counts READs of files only, never metadata or
// the .slowfs folder. Any thread; one lock, because a snapshot must be of one moment.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>

namespace slowfs {

class Counters {
 public:
  struct Snapshot {
    std::uint64_t bytes_served = 0;
    std::uint64_t requests = 0;
    std::uint64_t failed_requests = 0;
    std::uint64_t seeks = 0;  // of requests: did not begin where the one before ended
    std::uint64_t in_flight = 0;
    std::uint64_t peak_in_flight = 0;
    double seconds_since_reset = 0;
  };

  void request_arrived(bool seeks);
  // Just before a reply is handed over: whoever has the bytes finds them counted.
  void request_succeeded(std::uint64_t bytes);
  void request_failed();
  // Just after: at 0 in flight nothing is being written to the page cache any more.
  void reply_sent();

  void reset();
  [[nodiscard]] Snapshot snapshot() const;

 private:
  using Clock = std::chrono::steady_clock;

  mutable std::mutex mutex_;
  Snapshot counts_;
  Clock::time_point reset_at_ = Clock::now();
};

}  // namespace slowfs
