#include "plan/limited_by.h"

namespace shardahead {
namespace {

// A worker pays for whole blocks and waits for its turn, so a limit is not reached to the byte.
constexpr double kReached = 0.9;
// Of a processor: who computes for so long does not only wait for storage.
constexpr double kBusy = 0.5;

}  // namespace

Limit limited_by(const LoadSoFar& load) noexcept {
  if (load.read_bytes == 0 || load.seconds <= 0) return Limit::unknown;
  const double rate = static_cast<double>(load.read_bytes) / load.seconds;
  const double limit = static_cast<double>(load.rate_limit_bytes_per_s);
  if (limit > 0 && load.read_bytes > load.burst_bytes && rate >= kReached * limit) {
    return Limit::rate_limit;
  }
  // Workers that wait for a consumer have as little in flight as too few of them.
  if (load.found == Limit::threads && load.follows) return Limit::unknown;
  if (load.found == Limit::storage && load.cpu_seconds > kBusy * load.seconds) {
    return Limit::unknown;
  }
  return load.found;
}

}  // namespace shardahead
