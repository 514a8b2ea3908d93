// simulated_content: what a read finds in a simulated file: bytes that follow from the file and the
// offset, so that none of them has to be stored. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/byte_range.h"

namespace shardahead::testing {

// Files whose numbers differ have other bytes at the same offset, and one file at others.
std::byte content_at(std::uint64_t file, std::uint64_t offset);
void fill_with_content(std::uint64_t file, ByteRange range, std::byte* to);
[[nodiscard]] bool has_content(std::uint64_t file, ByteRange range, const std::byte* bytes);

}  // namespace shardahead::testing
