#include "engine/load_limit.h"

#include "plan/limited_by.h"

namespace shardahead {

Limit limit_of(const EngineState& state, const Report& report, double seconds) {
  const RateLimit& rate = state.pace.limit();
  return limited_by(
      {.found = report.limited_by,
       .read_bytes = report.node_read_bytes,
       .rate_limit_bytes_per_s = rate.bytes_per_s(),
       .burst_bytes = rate.burst_bytes(),
       .seconds = seconds,
       .cpu_seconds = report.cpu_seconds,
       .follows = state.job.options.consumer && state.ahead.window().ahead_bytes != 0});
}

}  // namespace shardahead
