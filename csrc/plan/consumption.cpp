#include "plan/consumption.h"

#include <algorithm>
#include <utility>

namespace shardahead {

void Consumption::hand_out(ByteRange range) {
  const MutexLock lock(mutex_);
  held_.emplace(range.offset, range.end());
  longest_bytes_ = std::max(longest_bytes_, range.length);
}

void Consumption::release(ByteRange range) noexcept {
  const MutexLock lock(mutex_);
  const auto [first, last] = held_.equal_range(range.offset);
  const auto found =
      std::find_if(first, last, [&](const auto& held) { return held.second == range.end(); });
  if (found == last) return;
  held_.erase(found);
  if (range.offset >= position_.released_bytes) return;
  try {
    late_.push_back(range);
  } catch (const std::bad_alloc&) {
    return;  // not dropped by us, but by the kernel when it needs the memory
  }
}

ConsumerPosition Consumption::pass(std::uint64_t position_bytes, std::uint64_t needed_bytes,
                                   std::uint64_t straggler_bytes, std::uint64_t releasable_bytes) {
  const MutexLock lock(mutex_);
  position_.consumed_bytes = std::max(position_.consumed_bytes, position_bytes);
  position_.needed_bytes = std::max(position_.needed_bytes, needed_bytes);
  const std::uint64_t passed = position_.consumed_bytes;
  const auto first = held_.lower_bound(passed - std::min(passed, straggler_bytes));
  const std::uint64_t held_from = first == held_.end() ? passed : first->first;
  position_.released_bytes =
      std::max(position_.released_bytes, std::min({passed, held_from, releasable_bytes}));
  return position_;
}

std::vector<ByteRange> Consumption::not_held(ByteRange range) const {
  const MutexLock lock(mutex_);
  std::vector<ByteRange> parts;
  std::uint64_t at = range.offset;
  // What begins before the range may end in it.
  auto held = held_.lower_bound(range.offset - std::min(range.offset, longest_bytes_));
  for (; held != held_.end() && held->first < range.end(); ++held) {
    const auto [begin, end] = *held;
    if (end <= at) continue;
    if (begin > at) parts.push_back({at, begin - at});
    at = end;
  }
  if (at < range.end()) parts.push_back({at, range.end() - at});
  return parts;
}

std::vector<ByteRange> Consumption::take_late() {
  const MutexLock lock(mutex_);
  return std::exchange(late_, {});
}

}  // namespace shardahead
