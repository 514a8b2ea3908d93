// window: how far the prefetch may be ahead of its consumer. Pure; the engine keeps the positions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

namespace shardahead {

struct ConsumerPosition {
  std::uint64_t consumed_bytes = 0;  // everything before has been handed out
  std::uint64_t needed_bytes = 0;    // the end of what is wanted next
};

// Blocks that begin before this position may be claimed. A window too small for the next tensor
// grows to it, or its consumer would wait for ever.
constexpr std::uint64_t window_end(std::uint64_t window_bytes, ConsumerPosition consumer) {
  constexpr std::uint64_t kNoEnd = std::numeric_limits<std::uint64_t>::max();
  if (window_bytes == 0 || consumer.consumed_bytes > kNoEnd - window_bytes) return kNoEnd;
  return std::max(consumer.consumed_bytes + window_bytes, consumer.needed_bytes);
}

}  // namespace shardahead
