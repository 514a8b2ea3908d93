// others: what one participant of a board has seen of the others, look by look: who shows no life,
// which of their consumers move, since when a block is with whoever has it. Decides only: it is
// told what the board says, and when, and has no clock of its own. Whether someone is dead, the
// locks tell (board_file.h). One thread at a time.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "board/board_memory.h"
#include "board/life.h"
#include "plan/window.h"

namespace shardahead {

class Others {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // Seen by the participant in `own_slot`, which wants `wanted` blocks.
  Others(std::uint32_t own_slot, std::size_t wanted);

  // Whether `slot` has shown no life for so long that it counts as stopped, by the time that a
  // block takes at present. `life` is its word on the board. Never one's own, nor what is no slot.
  bool is_silent(std::uint32_t slot, std::uint32_t life, std::chrono::microseconds block_time,
                 Time now) noexcept;

  // A look at the block in that place of the wanted ones (wanted_blocks.h). Since when it has been
  // seen in that state.
  Time look_at(std::size_t place, std::uint16_t state, Time now) noexcept;
  // The same without a look; nothing where the last one saw another state.
  [[nodiscard]] std::optional<Time> held_since(std::size_t place,
                                               std::uint16_t state) const noexcept;

  // The least of the positions of all consumers that move. One's own always counts.
  std::optional<ConsumerPosition> slowest_consumer(std::span<const ConsumerSlot> consumers,
                                                   Time now) noexcept;

 private:
  struct Held {
    Time since;
    std::uint16_t state = kFree;
  };

  std::uint32_t own_slot_;
  std::vector<LifeWatch> lives_;        // by slot
  std::vector<ConsumerWatch> watches_;  // by slot
  std::vector<Held> held_;              // by place
};

}  // namespace shardahead
