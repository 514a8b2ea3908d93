// limited_by: what kept a load from being faster, by what is known of it: what the climb of its
// node has found, unless the load itself says otherwise. Pure; any thread.
#pragma once

#include <cstdint>

#include "base/limit.h"

namespace shardahead {

struct LoadSoFar {
  Limit found = Limit::unknown;              // by the climb (inflight.h)
  std::uint64_t read_bytes = 0;              // by all whom the rate limit counts
  std::uint64_t rate_limit_bytes_per_s = 0;  // 0: none
  std::uint64_t burst_bytes = 0;             // that it does not hold up
  double seconds = 0;
  double cpu_seconds = 0;  // of the threads that bring bytes in
  bool follows = false;    // a consumer, who may be slow
};

Limit limited_by(const LoadSoFar& load) noexcept;

}  // namespace shardahead
