#include "node/touched_bytes.h"

#include <algorithm>
#include <map>

namespace shardahead {
namespace {

// More than a look at its header and at the first page of each of its tensors.
std::uint64_t in_earnest_bytes(std::uint64_t size_bytes) {
  return std::max(4 * kMiB, size_bytes / 32);
}

}  // namespace

TouchedBytes::TouchedBytes(const std::vector<std::uint64_t>& sizes)
    : sizes_(sizes),
      grains_(sizes.size()),
      expected_(sizes.size()),
      began_(sizes.size()),
      file_bytes_(sizes.size()) {}

void TouchedBytes::expect(std::size_t file, ByteRange range) {
  const std::uint64_t size_bytes = sizes_.at(file);
  const MutexLock lock(mutex_);
  expects_ = true;
  range = intersect(range, {0, size_bytes});
  if (range.empty()) return;
  Grains& expected = expected_[file];
  if (expected.empty()) expected.resize(align_up(size_bytes, kGrainBytes) / kGrainBytes);
  const std::uint64_t first = range.offset / kGrainBytes;
  const std::uint64_t end = (range.end() - 1) / kGrainBytes + 2;
  std::fill(
      expected.begin() + static_cast<std::ptrdiff_t>(first - std::min<std::uint64_t>(first, 1)),
      expected.begin() + static_cast<std::ptrdiff_t>(std::min(end, expected.size())), true);
}

std::uint64_t TouchedBytes::unexpected_bytes() const {
  const MutexLock lock(mutex_);
  return unexpected_bytes_;
}

void TouchedBytes::mark(std::size_t file, ByteRange range) {
  const std::uint64_t size_bytes = sizes_.at(file);
  range = intersect(range, {0, size_bytes});
  if (range.empty()) return;
  const MutexLock lock(mutex_);
  Grains& grains = grains_[file];
  const Grains& expected = expected_[file];
  if (grains.empty()) {
    grains.resize(align_up(size_bytes, kGrainBytes) / kGrainBytes);
    began_[file] = ++moments_;
  }
  const std::uint64_t before_bytes = file_bytes_[file];
  const std::uint64_t end = (range.end() - 1) / kGrainBytes + 1;
  for (std::uint64_t grain = range.offset / kGrainBytes; grain < end; ++grain) {
    if (grains[grain]) continue;
    grains[grain] = true;
    const std::uint64_t bytes = std::min(kGrainBytes, size_bytes - grain * kGrainBytes);
    bytes_ += bytes;
    file_bytes_[file] += bytes;
    if (expects_ && (expected.empty() || !expected[grain])) unexpected_bytes_ += bytes;
  }
  const std::uint64_t least_bytes = in_earnest_bytes(size_bytes);
  if (before_bytes < least_bytes && file_bytes_[file] >= least_bytes) began_[file] = ++moments_;
}

std::vector<ByteRange> TouchedBytes::ranges(std::size_t file) const {
  const std::uint64_t size_bytes = sizes_.at(file);
  const MutexLock lock(mutex_);
  return runs(file, {0, size_bytes}, true);
}

std::vector<ByteRange> TouchedBytes::untouched(std::size_t file, ByteRange within) const {
  within = intersect(within, {0, sizes_.at(file)});
  if (within.empty()) return {};
  const MutexLock lock(mutex_);
  if (grains_[file].empty()) return {within};
  return runs(file, within, false);
}

std::uint64_t TouchedBytes::bytes() const {
  const MutexLock lock(mutex_);
  return bytes_;
}

std::vector<std::size_t> TouchedBytes::order() const {
  std::map<std::uint64_t, std::size_t> by_moment;
  {
    const MutexLock lock(mutex_);
    for (std::size_t file = 0; file < began_.size(); ++file) {
      if (began_[file] != 0) by_moment.emplace(began_[file], file);
    }
  }
  std::vector<std::size_t> found;
  found.reserve(by_moment.size());
  for (const auto& [moment, file] : by_moment) found.push_back(file);
  return found;
}

std::vector<ByteRange> TouchedBytes::runs(std::size_t file, ByteRange within, bool touched) const {
  std::vector<ByteRange> found;
  const Grains& grains = grains_[file];
  if (grains.empty() || within.empty()) return found;
  const auto at = [&](std::uint64_t grain) {
    return grains.begin() + static_cast<std::ptrdiff_t>(grain);
  };
  const auto end = at((within.end() - 1) / kGrainBytes + 1);
  for (auto next = at(within.offset / kGrainBytes);;) {
    const auto first = std::find(next, end, touched);
    if (first == end) return found;
    next = std::find(first, end, !touched);
    const auto begin_bytes = static_cast<std::uint64_t>(first - grains.begin()) * kGrainBytes;
    const auto end_bytes = static_cast<std::uint64_t>(next - grains.begin()) * kGrainBytes;
    found.push_back(intersect({begin_bytes, end_bytes - begin_bytes}, within));
  }
}

}  // namespace shardahead
