// load_limit: what kept a load from being faster: what was found of its node (plan/limited_by.h),
// held against what the load has done. Any thread.
#pragma once

#include "base/report.h"
#include "engine/engine_state.h"

namespace shardahead {

// Of a report that has what the tally knows.
Limit limit_of(const EngineState& state, const Report& report, double seconds);

}  // namespace shardahead
