// worker: what a worker thread of an engine does: take a block, bring it in, settle it, wait for
// the next.
#pragma once

#include <memory>

#include "board/claims.h"
#include "engine/engine_state.h"

namespace shardahead {

// Called by a thread that the crew has counted in; leaves it at the end, whatever it meets. The
// claims are let go before: who has waited for the end does not find them still held.
void work(EngineState& state, std::shared_ptr<Claims> claims) noexcept;

}  // namespace shardahead
