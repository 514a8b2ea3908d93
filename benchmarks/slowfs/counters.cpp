#include "counters.h"

#include <algorithm>

namespace slowfs {

void Counters::request_arrived(bool seeks) {
  const std::lock_guard lock(mutex_);
  if (seeks) ++counts_.seeks;
  ++counts_.requests;
  ++counts_.in_flight;
  counts_.peak_in_flight = std::max(counts_.peak_in_flight, counts_.in_flight);
}

void Counters::request_succeeded(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  counts_.bytes_served += bytes;
}

void Counters::request_failed() {
  const std::lock_guard lock(mutex_);
  ++counts_.failed_requests;
}

void Counters::reply_sent() {
  const std::lock_guard lock(mutex_);
  --counts_.in_flight;
}

void Counters::reset() {
  const std::lock_guard lock(mutex_);
  const std::uint64_t in_flight = counts_.in_flight;
  counts_ = {};
  counts_.in_flight = in_flight;
  counts_.peak_in_flight = in_flight;
  reset_at_ = Clock::now();
}

Counters::Snapshot Counters::snapshot() const {
  const std::lock_guard lock(mutex_);
  Snapshot copy = counts_;
  copy.seconds_since_reset = std::chrono::duration<double>(Clock::now() - reset_at_).count();
  return copy;
}

}  // namespace slowfs
