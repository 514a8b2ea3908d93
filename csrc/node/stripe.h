// stripe: how Lustre lays a file out over its servers, from the extended attribute that its client
// gives for every file, and the block size that suits it. Needs no library of Lustre; has been
// tested on recorded layouts only. The parser and the choice are pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/byte_range.h"

namespace shardahead {

// Blocks are not made larger than this for the sake of stripes: a block is waited for as a whole,
// and the least that a node has in flight is one.
inline constexpr std::uint64_t kMaxStripedBlockBytes = 64 * kMiB;

// Consecutive ranges of size_bytes lie on `count` objects in turn, each on a server's target.
struct Stripe {
  std::uint64_t size_bytes = 0;
  std::uint32_t count = 0;
  friend bool operator==(const Stripe&, const Stripe&) = default;
};

// Of a layout of version 1 or 3, or of the component of a composite layout that holds the most of
// the file's bytes. Nothing where the bytes are not such a layout, are too few for it, or tell of
// no objects: data on the metadata server, files that were released to an archive.
std::optional<Stripe> parse_stripe(std::span<const std::byte> layout, std::uint64_t file_bytes);

// Nothing where the path is not on Lustre, or cannot be asked.
std::optional<Stripe> stripe_of(const std::string& path) noexcept;

// The multiple of the stripe size that is nearest to block_bytes, one stripe at least; block_bytes
// itself where stripes are longer than kMaxStripedBlockBytes.
std::uint64_t striped_block_bytes(std::uint64_t block_bytes, const Stripe& stripe) noexcept;

}  // namespace shardahead
