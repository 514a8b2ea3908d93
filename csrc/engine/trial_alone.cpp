#include "engine/trial_alone.h"

#include <cstdint>
#include <exception>

#include "engine/noting.h"

namespace shardahead {
namespace {

bool try_first_block(EngineState& state) {
  const Job& job = state.job;
  const auto& blocks = job.plan->blocks();
  for (std::uint32_t block = 0; block < blocks.size(); ++block) {
    const auto ranges = job.plan->wanted(blocks[block]);
    if (ranges.empty()) continue;
    std::uint64_t ignored = 0;  // counts as read when the block's turn comes
    const auto claims = state.crew.claims();
    const auto file = job.files->acquire(blocks[block].file);
    const auto note = [&] {
      if (claims) note_resident(job.io, *job.plan, *claims, *file, block);
    };
    state.trial.try_mount(*file, ranges, claims.get(), ignored, note);
    return true;
  }
  return false;
}

}  // namespace

void try_alone(EngineState& state) noexcept {
  bool tried = false;
  try {
    tried = try_first_block(state);
  } catch (const std::exception&) {
    tried = false;
  }
  if (!tried) state.trial.fail_alone();
}

}  // namespace shardahead
