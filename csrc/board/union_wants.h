// union_wants: what all participants of a board want together, as one of them says and sees it.
// What has been wanted stays wanted, also by those who have died since; so who comes late only
// adds. What stands on the board may be anything: it never means bytes outside of a block, nor
// keeps a participant from its own. Whose a block is, it does not know. One thread at a time;
// ranges() any.
#pragma once

#include <cstdint>
#include <vector>

#include "board/board_memory.h"
#include "board/grains.h"
#include "plan/plan.h"
#include "plan/wanted_sums.h"

namespace shardahead {

class UnionWants {
 public:
  // The plan must outlive it. `grains` are the plan's, and `memory` a board of it.
  UnionWants(const Plan& plan, const BoardMemory& memory, Grains grains);

  // This participant wants what its plan does of these blocks. Said before it looks for claims: who
  // has claimed one asks what is wanted afterwards.
  void add(const std::vector<std::uint32_t>& blocks);
  // What of a block is to be fetched, in order: all that anyone has said to want, and what this
  // participant does. Asked after the claim.
  [[nodiscard]] std::vector<ByteRange> ranges(std::uint32_t block) const;
  // Of all, as far as was said until then; looks again where more was said.
  [[nodiscard]] const WantedSums& sums() noexcept;

 private:
  void mark(std::uint32_t file, ByteRange range) const noexcept;
  [[nodiscard]] std::vector<ByteRange> marked(const Block& block) const;
  [[nodiscard]] std::uint64_t marked_bytes(const Block& block) const noexcept;
  [[nodiscard]] std::uint64_t bytes_of(std::uint32_t block) const noexcept;

  const Plan& plan_;
  const BoardMemory memory_;
  const Grains grains_;
  WantedSums sums_;
  // Where this one wants all of the plan, nobody can want more.
  bool all_ = false;
  std::uint32_t seen_ = 0;  // the number of changes that the sums know of
};

}  // namespace shardahead
