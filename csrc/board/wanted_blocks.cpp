#include "board/wanted_blocks.h"

#include <algorithm>

namespace shardahead {

WantedBlocks::WantedBlocks(const Plan& plan, const std::vector<std::uint32_t>& wanted,
                           std::uint64_t read_before_bytes)
    : plan_(plan), wanted_(wanted), known_(wanted.size()), read_before_bytes_(read_before_bytes) {}

std::optional<std::size_t> WantedBlocks::place_of(std::uint32_t block) const noexcept {
  const auto found = std::ranges::lower_bound(wanted_, block);
  if (found == wanted_.end() || *found != block) return std::nullopt;
  return static_cast<std::size_t>(found - wanted_.begin());
}

void WantedBlocks::give_out(std::size_t place, bool claimed) noexcept {
  known_[place] = {.recheck = false, .own = true, .in_hand = claimed};
}

void WantedBlocks::put_down(std::uint32_t block) noexcept {
  if (const auto place = place_of(block)) known_[*place].in_hand = false;
}

void WantedBlocks::advance(std::span<const BlockState> states) {
  for (; first_open_ < wanted_.size(); ++first_open_) {
    const std::uint32_t block = wanted_[first_open_];
    const std::uint16_t state = states[block];
    const Known& known = known_[first_open_];
    if (known.recheck || !is_settled(state)) return;
    if (known.own) continue;
    const std::uint64_t bytes = plan_.wanted_bytes(plan_.blocks()[block]);
    (state == kDone ? shared_.done_bytes : shared_.failed_bytes) += bytes;
  }
}

SharedFigures WantedBlocks::shared(std::uint64_t read_bytes) const noexcept {
  SharedFigures found = shared_;
  found.node_read_bytes = read_bytes - std::min(read_bytes, read_before_bytes_);
  return found;
}

bool WantedBlocks::is_settled_before(std::uint64_t limit_bytes) const {
  return first_open_ == wanted_.size() ||
         plan_.position(plan_.blocks()[wanted_[first_open_]]) >= limit_bytes;
}

}  // namespace shardahead
