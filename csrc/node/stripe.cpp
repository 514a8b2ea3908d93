#include "node/stripe.h"

#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <concepts>

namespace shardahead {
namespace {

// The layouts are those of lustre_user.h. Numbers are little-endian; the structures are packed.
constexpr std::uint32_t kMagicV1 = 0x0BD10BD0;
constexpr std::uint32_t kMagicV3 = 0x0BD30BD0;
constexpr std::uint32_t kMagicComposite = 0x0BD60BD0;

// lov_user_md_v1, and the start of lov_user_md_v3, which goes on with the name of a pool.
constexpr std::size_t kPatternAt = 4, kStripeSizeAt = 24, kStripeCountAt = 28;
constexpr std::size_t kPlainBytes = 32, kPooledBytes = 48;
constexpr std::uint32_t kPatternRaid0 = 0x001, kPatternMdt = 0x100;
constexpr std::uint64_t kStripeUnit = 64 * kKiB;
constexpr std::uint16_t kAllTargets = 0xFFFF;  // a wish: no objects yet

// lov_comp_md_v1 and its entries, lov_comp_md_entry_v1.
constexpr std::size_t kEntryCountAt = 14, kHeaderBytes = 32;
constexpr std::size_t kFlagsAt = 4, kStartAt = 8, kEndAt = 16, kOffsetAt = 24, kSizeAt = 28;
constexpr std::size_t kEntryBytes = 48;
constexpr std::uint32_t kStale = 0x1, kInstantiated = 0x10, kParity = 0x80;

constexpr std::size_t kMaxLayoutBytes = 64 * kKiB;  // of any extended attribute

using Bytes = std::span<const std::byte>;

template <std::unsigned_integral Number>
Number number_at(Bytes bytes, std::size_t at) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < sizeof(Number); ++i) {
    value |= std::to_integer<std::uint64_t>(bytes[at + i]) << (8 * i);
  }
  return static_cast<Number>(value);
}

std::optional<Stripe> parse_plain(Bytes layout) {
  if (layout.size() < kPlainBytes) return std::nullopt;
  const auto magic = number_at<std::uint32_t>(layout, 0);
  if (magic != kMagicV1 && (magic != kMagicV3 || layout.size() < kPooledBytes)) return std::nullopt;
  const auto pattern = number_at<std::uint32_t>(layout, kPatternAt);
  if ((pattern & (kPatternRaid0 | kPatternMdt)) != kPatternRaid0) return std::nullopt;
  const Stripe stripe{number_at<std::uint32_t>(layout, kStripeSizeAt),
                      number_at<std::uint16_t>(layout, kStripeCountAt)};
  if (stripe.size_bytes == 0 || stripe.size_bytes % kStripeUnit != 0) return std::nullopt;
  if (stripe.count == 0 || stripe.count == kAllTargets) return std::nullopt;
  return stripe;
}

// Mirrors hold the same bytes: the first counts.
std::optional<Stripe> parse_composite(Bytes layout, std::uint64_t file_bytes) {
  if (layout.size() < kHeaderBytes) return std::nullopt;
  const std::size_t entries = number_at<std::uint16_t>(layout, kEntryCountAt);
  if (layout.size() < kHeaderBytes + entries * kEntryBytes) return std::nullopt;
  std::optional<Stripe> found;
  std::uint64_t most_bytes = 0;
  for (std::size_t i = 0; i < entries; ++i) {
    const Bytes entry = layout.subspan(kHeaderBytes + i * kEntryBytes, kEntryBytes);
    const auto flags = number_at<std::uint32_t>(entry, kFlagsAt);
    if ((flags & (kStale | kInstantiated | kParity)) != kInstantiated) continue;
    const auto start = number_at<std::uint64_t>(entry, kStartAt);
    const auto end = std::min(number_at<std::uint64_t>(entry, kEndAt), file_bytes);
    const std::size_t offset = number_at<std::uint32_t>(entry, kOffsetAt);
    const std::size_t size = number_at<std::uint32_t>(entry, kSizeAt);
    if (offset > layout.size() || size > layout.size() - offset) return std::nullopt;
    if (start >= end || end - start <= most_bytes) continue;
    if (const auto stripe = parse_plain(layout.subspan(offset, size))) {
      found = stripe;
      most_bytes = end - start;
    }
  }
  return found;
}

}  // namespace

std::optional<Stripe> parse_stripe(Bytes layout, std::uint64_t file_bytes) {
  if (layout.size() < sizeof(std::uint32_t)) return std::nullopt;
  if (number_at<std::uint32_t>(layout, 0) != kMagicComposite) return parse_plain(layout);
  return parse_composite(layout, file_bytes);
}

std::optional<Stripe> stripe_of(const std::string& path) noexcept {
  std::array<std::byte, kMaxLayoutBytes> layout{};
  const ssize_t size = ::getxattr(path.c_str(), "lustre.lov", layout.data(), layout.size());
  struct stat status{};
  if (size < 0 || ::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return std::nullopt;
  }
  return parse_stripe(Bytes(layout).first(static_cast<std::size_t>(size)),
                      static_cast<std::uint64_t>(status.st_size));
}

std::uint64_t striped_block_bytes(std::uint64_t block_bytes, const Stripe& stripe) noexcept {
  if (stripe.size_bytes == 0 || stripe.size_bytes > kMaxStripedBlockBytes) return block_bytes;
  const std::uint64_t stripes = (block_bytes + stripe.size_bytes / 2) / stripe.size_bytes;
  return std::max<std::uint64_t>(stripes, 1) * stripe.size_bytes;
}

}  // namespace shardahead
