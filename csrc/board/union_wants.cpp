#include "board/union_wants.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace shardahead {
namespace {

constexpr std::uint64_t kWordGrains = 64;

// The bits of a word that stand for these grains; visit(word, bits) for each that has one.
template <typename Visit>
void for_each_word(GrainRange grains, Visit&& visit) {
  for (std::uint64_t at = grains.begin; at < grains.end;) {
    const std::uint64_t first = at % kWordGrains;
    const std::uint64_t count = std::min(kWordGrains - first, grains.end - at);
    const std::uint64_t bits =
        count == kWordGrains ? ~std::uint64_t{0} : ((std::uint64_t{1} << count) - 1) << first;
    visit(static_cast<std::size_t>(at / kWordGrains), bits);
    at += count;
  }
}

}  // namespace

UnionWants::UnionWants(const Plan& plan, const BoardMemory& memory, Grains grains)
    : plan_(plan), memory_(memory), grains_(std::move(grains)), sums_(plan) {}

void UnionWants::add(const std::vector<std::uint32_t>& blocks) {
  bool more = false;
  bool all = blocks.size() == plan_.blocks().size();
  for (const std::uint32_t index : blocks) {
    const Block& block = plan_.blocks()[index];
    BlockWants& wants = memory_.wants[index];
    std::uint8_t seen = wants;
    if (plan_.wanted_bytes(block) == block.range.length) {
      if (seen != kWantedWhole) wants = kWantedWhole;
      more |= seen != kWantedWhole;
      continue;
    }
    all = false;
    // The grains first: whoever reads that several want the block looks at them.
    for (const ByteRange& range : plan_.wanted(block)) mark(block.file, range);
    more = true;
    seen = kNotWanted;
    if (wants.compare_exchange_strong(seen, kWantedPartly)) continue;
    while (seen == kWantedPartly && !wants.compare_exchange_weak(seen, kWantedInGrains)) {
    }
  }
  if (more) memory_.header->wants_changes.fetch_add(1);
  all_ = all;
  if (all_) return;
  seen_ = memory_.header->wants_changes;
  sums_.sum_up([this](std::uint32_t block) { return bytes_of(block); });
}

std::vector<ByteRange> UnionWants::ranges(std::uint32_t index) const {
  const Block& block = plan_.blocks()[index];
  std::vector<ByteRange> own = plan_.wanted(block);
  switch (memory_.wants[index]) {
    case kNotWanted:     // cannot be, for this one wants it
    case kWantedPartly:  // by this one, or it would not have the block
      return own;
    case kWantedInGrains: break;
    default: return {block.range};
  }
  const std::vector<ByteRange> others = marked(block);
  own.insert(own.end(), others.begin(), others.end());
  return merge_ranges(std::move(own));
}

const WantedSums& UnionWants::sums() noexcept {
  if (all_) return sums_;
  const std::uint32_t changes = memory_.header->wants_changes;
  if (changes != seen_) {
    seen_ = changes;
    sums_.sum_up([this](std::uint32_t block) { return bytes_of(block); });
  }
  return sums_;
}

void UnionWants::mark(std::uint32_t file, ByteRange range) const noexcept {
  for_each_word(grains_.under(file, range), [this](std::size_t word, std::uint64_t bits) {
    if ((memory_.grains[word] & bits) != bits) memory_.grains[word].fetch_or(bits);
  });
}

std::vector<ByteRange> UnionWants::marked(const Block& block) const {
  std::vector<ByteRange> found;
  const GrainRange grains = grains_.under(block.file, block.range);
  for (std::uint64_t grain = grains.begin; grain < grains.end; ++grain) {
    const std::uint64_t word = memory_.grains[grain / kWordGrains];
    if ((word >> (grain % kWordGrains) & 1U) == 0) continue;
    found.push_back(intersect(grains_.range_of(block.file, {grain, grain + 1}), block.range));
  }
  return found;
}

std::uint64_t UnionWants::marked_bytes(const Block& block) const noexcept {
  std::uint64_t grains = 0;
  for_each_word(grains_.under(block.file, block.range), [&](std::size_t word, std::uint64_t bits) {
    grains += static_cast<std::uint64_t>(std::popcount(memory_.grains[word] & bits));
  });
  return std::min(grains * grains_.bytes(), block.range.length);
}

// About: of the grains at both ends of a block some bytes may lie outside.
std::uint64_t UnionWants::bytes_of(std::uint32_t index) const noexcept {
  const Block& block = plan_.blocks()[index];
  const std::uint64_t own_bytes = plan_.wanted_bytes(block);
  switch (memory_.wants[index]) {
    case kNotWanted: return 0;
    case kWantedPartly: return own_bytes > 0 ? own_bytes : marked_bytes(block);
    case kWantedInGrains: return std::max(own_bytes, marked_bytes(block));
    default: return block.range.length;
  }
}

}  // namespace shardahead
