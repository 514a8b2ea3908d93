// worker: what a worker thread of an engine does: take a block, bring it in, settle it, wait for
// the next.
#pragma once

#include "board/claims.h"
#include "engine/engine_state.h"

namespace shardahead {

// Called by a thread that the crew has counted in; leaves it at the end, whatever it meets.
void work(EngineState& state, Claims& claims) noexcept;

}  // namespace shardahead
