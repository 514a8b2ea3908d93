#include "board/others.h"

#include "board/board_file.h"

namespace shardahead {

Others::Others(std::uint32_t own_slot, std::size_t wanted)
    : own_slot_(own_slot), lives_(kBoardSlots), watches_(kBoardSlots), held_(wanted) {}

bool Others::is_silent(std::uint32_t slot, std::uint32_t life, std::chrono::microseconds block_time,
                       Time now) noexcept {
  if (slot >= lives_.size() || slot == own_slot_) return false;
  return lives_[slot].silence(life, now) >= silence_allowed(block_time);
}

Others::Time Others::look_at(std::size_t place, std::uint16_t state, Time now) noexcept {
  Held& held = held_[place];
  if (held.state != state) held = {now, state};
  return held.since;
}

std::optional<Others::Time> Others::held_since(std::size_t place,
                                               std::uint16_t state) const noexcept {
  const Held& held = held_[place];
  if (held.state != state) return std::nullopt;
  return held.since;
}

std::optional<ConsumerPosition> Others::slowest_consumer(std::span<const ConsumerSlot> consumers,
                                                         Time now) noexcept {
  std::optional<ConsumerPosition> slowest;
  for (std::uint32_t slot = 0; slot < consumers.size(); ++slot) {
    const ConsumerSlot& consumer = consumers[slot];
    if (consumer.active == 0) continue;
    const ConsumerPosition position = {consumer.consumed_bytes, consumer.needed_bytes,
                                       consumer.released_bytes};
    if (slot != own_slot_ && !watches_[slot].moves(position, now)) continue;
    slowest = slowest ? slower_of(*slowest, position) : position;
  }
  return slowest;
}

}  // namespace shardahead
