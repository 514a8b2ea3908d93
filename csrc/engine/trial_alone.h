// trial_alone: the mount is tried where no worker has a block to try: all are settled, or lie
// beyond a window that follows another consumer. For a thread of its own, which can be left behind.
#pragma once

#include "engine/engine_state.h"

namespace shardahead {

// On the first block, which others have, or have had, or which nobody is to take yet.
void try_alone(EngineState& state) noexcept;

}  // namespace shardahead
