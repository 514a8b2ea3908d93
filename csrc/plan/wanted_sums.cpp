#include "plan/wanted_sums.h"

namespace shardahead {

WantedSums::WantedSums(const Plan& plan) : plan_(plan) {
  const bool all = std::ranges::none_of(
      plan.files(), [](const PlannedFile& file) { return file.spans.has_value(); });
  if (!all) sum_up([&](std::uint32_t index) { return plan.wanted_bytes(plan.blocks()[index]); });
}

std::uint64_t WantedSums::before(std::uint64_t position) const noexcept {
  const std::vector<Block>& blocks = plan_.blocks();
  const auto begin_of = [&](const Block& block) { return plan_.position(block); };
  const auto after = std::ranges::upper_bound(blocks, position, {}, begin_of);
  if (after == blocks.begin()) return 0;
  const auto index = static_cast<std::uint32_t>(after - blocks.begin() - 1);
  const std::uint64_t end = begin_of(blocks[index]) + blocks[index].range.length;
  return sums_[index + 1] - std::min(of(index), end - std::min(end, position));
}

std::uint64_t WantedSums::window_end(std::uint64_t window_bytes,
                                     const ConsumerPosition& consumer) const noexcept {
  const std::uint64_t consumed_bytes = consumer.consumed_bytes;
  if (window_bytes == 0 || consumed_bytes > kNoEnd - window_bytes) return kNoEnd;
  if (everything_) return std::max(consumed_bytes + window_bytes, consumer.needed_bytes);
  const std::uint64_t before_bytes = before(consumed_bytes);
  if (before_bytes > kNoEnd - window_bytes) return kNoEnd;
  const auto end = std::ranges::lower_bound(sums_, before_bytes + window_bytes);
  const auto index = static_cast<std::size_t>(end - sums_.begin());
  if (index >= plan_.blocks().size()) return kNoEnd;
  return std::max(plan_.position(plan_.blocks()[index]), consumer.needed_bytes);
}

std::uint64_t WantedSums::behind(std::uint64_t position,
                                 std::uint64_t wanted_bytes) const noexcept {
  if (everything_) return position - std::min(position, wanted_bytes);
  const std::uint64_t before_bytes = before(position);
  if (before_bytes < wanted_bytes || plan_.blocks().empty()) return 0;
  const auto after = std::ranges::upper_bound(sums_, before_bytes - wanted_bytes);
  const auto index =
      std::min<std::size_t>(static_cast<std::size_t>(after - sums_.begin()), plan_.blocks().size());
  return std::min(position, plan_.position(plan_.blocks()[index - 1]));
}

}  // namespace shardahead
