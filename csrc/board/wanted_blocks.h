// wanted_blocks: what one participant of a board keeps in mind of the blocks that it wants: which
// it has in hand, which it is still to ask about, how far all are settled, and what others did of
// them. Whose a block is, it does not know: that is on the board, which it is shown. A place is an
// index into the wanted blocks. One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "board/board_memory.h"
#include "board/claims.h"
#include "plan/plan.h"

namespace shardahead {

class WantedBlocks {
 public:
  // `wanted` are ascending blocks of the plan; both must outlive it. The node had brought in
  // `read_before_bytes` when this participant came.
  WantedBlocks(const Plan& plan, const std::vector<std::uint32_t>& wanted,
               std::uint64_t read_before_bytes = 0);

  // Of a block of the plan; nothing where it is not wanted.
  [[nodiscard]] std::optional<std::size_t> place_of(std::uint32_t block) const noexcept;

  // Someone has begun it before this participant came, and may have fetched only what was wanted
  // until then: once it is settled, it is given out all the same.
  void recheck(std::size_t place) noexcept { known_[place].recheck = true; }
  [[nodiscard]] bool is_to_recheck(std::size_t place, std::uint16_t state) const noexcept {
    return known_[place].recheck && is_settled(state);
  }

  // Given out to a worker of this participant, which settles it only where it is `claimed`.
  void give_out(std::size_t place, bool claimed) noexcept;
  // It has been settled, or is given back.
  void put_down(std::uint32_t block) noexcept;
  [[nodiscard]] bool is_in_hand(std::size_t place) const noexcept { return known_[place].in_hand; }

  // Moves first_open() past what is settled by now, and counts what others have settled.
  void advance(std::span<const BlockState> states);
  // The first place that is not settled and done with; the number of them where all are.
  [[nodiscard]] std::size_t first_open() const noexcept { return first_open_; }
  // Whether first_open() is not before this position of the plan.
  [[nodiscard]] bool is_settled_before(std::uint64_t limit_bytes) const;
  // What others did; the node has brought in `read_bytes` by now.
  [[nodiscard]] SharedFigures shared(std::uint64_t read_bytes = 0) const noexcept;

 private:
  struct Known {
    bool recheck : 1 = false;  // begun before this participant came, not asked yet
    bool own : 1 = false;      // given out here, so it is counted here
    bool in_hand : 1 = false;  // claimed by this participant and not settled yet
  };

  const Plan& plan_;
  const std::vector<std::uint32_t>& wanted_;
  std::vector<Known> known_;    // by place
  std::size_t first_open_ = 0;  // a place
  std::uint64_t read_before_bytes_;
  SharedFigures shared_;
};

}  // namespace shardahead
