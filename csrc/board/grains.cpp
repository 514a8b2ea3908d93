#include "board/grains.h"

#include <algorithm>

namespace shardahead {
namespace {

constexpr std::uint64_t kLeastGrainBytes = kMinBlockBytes;

std::uint64_t largest_block_bytes(const Plan& plan) {
  std::uint64_t bytes = 0;
  for (const Block& block : plan.blocks()) bytes = std::max(bytes, block.range.length);
  return bytes;
}

}  // namespace

Grains::Grains(const Plan& plan)
    : bytes_(std::clamp(align_down(largest_block_bytes(plan), kLeastGrainBytes), kLeastGrainBytes,
                        kGrainBytes)) {
  first_.reserve(plan.files().size() + 1);
  for (;; bytes_ *= 2) {
    first_.assign(1, 0);
    for (const PlannedFile& file : plan.files()) {
      first_.push_back(first_.back() + align_up(file.size_bytes, bytes_) / bytes_);
    }
    // Of more files than that each has one, whatever their size.
    if (count() <= kMostGrains || bytes_ >= kMaxBlockBytes) return;
  }
}

GrainRange Grains::under(std::uint32_t file, ByteRange range) const noexcept {
  const std::uint64_t first = first_[file];
  if (range.empty()) return {first, first};
  const std::uint64_t last = first_[file + 1];
  return {std::min(first + range.offset / bytes_, last),
          std::min(first + (range.end() - 1) / bytes_ + 1, last)};
}

ByteRange Grains::range_of(std::uint32_t file, GrainRange grains) const noexcept {
  return {(grains.begin - first_[file]) * bytes_, (grains.end - grains.begin) * bytes_};
}

}  // namespace shardahead
