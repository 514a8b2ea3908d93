// window: how far the prefetch may be ahead of its consumer. Pure; the engine keeps the positions.
#pragma once

#include <algorithm>
#include <cstdint>

namespace shardahead {

struct ConsumerPosition {
  std::uint64_t consumed_bytes = 0;  // everything before has been handed out
  std::uint64_t needed_bytes = 0;    // the end of what is wanted next
};

// A window too small for the next tensor grows to it, or its consumer would wait for ever.
constexpr bool inside_window(std::uint64_t block_position, std::uint64_t window_bytes,
                             ConsumerPosition consumer) {
  if (window_bytes == 0) return true;
  if (block_position < std::max(consumer.consumed_bytes, consumer.needed_bytes)) return true;
  return block_position - consumer.consumed_bytes < window_bytes;  // no sum that could wrap
}

}  // namespace shardahead
