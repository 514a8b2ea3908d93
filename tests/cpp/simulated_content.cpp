#include "simulated_content.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <random>

namespace shardahead::testing {
namespace {

constexpr std::uint64_t kPatternBytes = 65521;  // a prime: no two pages look the same

using Pattern = std::array<std::byte, kPatternBytes>;

const Pattern& pattern() {
  static const Pattern bytes = [] {
    Pattern made;
    std::mt19937 random(1);
    for (std::byte& each : made) each = static_cast<std::byte>(random() & 0xff);
    return made;
  }();
  return bytes;
}

// Calls `piece(from the start of the range, in the pattern, length)` for what lies together there.
template <typename Piece>
bool for_each_piece(std::uint64_t file, ByteRange range, Piece piece) {
  for (std::uint64_t done = 0; done < range.length;) {
    const std::uint64_t from = (range.offset + done + file) % kPatternBytes;
    const std::uint64_t length = std::min(range.length - done, kPatternBytes - from);
    if (!piece(done, pattern().data() + from, length)) return false;
    done += length;
  }
  return true;
}

}  // namespace

std::byte content_at(std::uint64_t file, std::uint64_t offset) {
  return pattern()[(offset + file) % kPatternBytes];
}

void fill_with_content(std::uint64_t file, ByteRange range, std::byte* to) {
  for_each_piece(file, range, [&](std::uint64_t at, const std::byte* from, std::uint64_t length) {
    std::memcpy(to + at, from, length);
    return true;
  });
}

bool has_content(std::uint64_t file, ByteRange range, const std::byte* bytes) {
  return for_each_piece(file, range,
                        [&](std::uint64_t at, const std::byte* from, std::uint64_t length) {
                          return std::memcmp(bytes + at, from, length) == 0;
                        });
}

}  // namespace shardahead::testing
