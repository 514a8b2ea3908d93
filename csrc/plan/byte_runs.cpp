#include "plan/byte_runs.h"

#include <algorithm>
#include <cstring>
#include <ranges>
#include <stdexcept>
#include <string>

namespace shardahead {
namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 63U;

void require(bool holds, const std::string& message) {
  if (!holds) throw std::invalid_argument(message);
}

}  // namespace

ByteRuns::ByteRuns(std::uint64_t run_bytes, std::vector<RunLevel> levels)
    : run_bytes_(run_bytes), levels_(std::move(levels)) {
  require(run_bytes_ > 0 && run_bytes_ <= kMostBytes,
          "runs of " + std::to_string(run_bytes_) + " bytes");
  std::uint64_t within_bytes = run_bytes_;
  for (const RunLevel& level : levels_ | std::views::reverse) {
    require(level.count > 0 && level.stride_bytes >= within_bytes &&
                level.count <= kMostBytes / level.stride_bytes,
            std::to_string(level.count) + " times " + std::to_string(within_bytes) +
                " bytes at a stride of " + std::to_string(level.stride_bytes));
    within_bytes = level.count * level.stride_bytes;
  }
}

std::uint64_t ByteRuns::packed_bytes() const noexcept {
  std::uint64_t bytes = run_bytes_;
  for (const RunLevel& level : levels_) bytes *= level.count;
  return bytes;
}

std::uint64_t ByteRuns::extent_bytes() const noexcept {
  std::uint64_t bytes = run_bytes_;
  for (const RunLevel& level : levels_) bytes += (level.count - 1) * level.stride_bytes;
  return bytes;
}

std::uint64_t ByteRuns::offset_of(std::uint64_t run) const noexcept {
  std::uint64_t offset = 0;
  for (const RunLevel& level : levels_ | std::views::reverse) {
    offset += run % level.count * level.stride_bytes;
    run /= level.count;
  }
  return offset;
}

// The gaps of a level are no longer than those of the levels around it, whose strides hold whole
// strides of it.
ByteRuns ByteRuns::joined(std::uint64_t max_gap_bytes) const {
  ByteRuns made = *this;
  while (!made.levels_.empty()) {
    const RunLevel& inner = made.levels_.back();
    if (inner.count > 1 && inner.stride_bytes - made.run_bytes_ > max_gap_bytes) break;
    made.run_bytes_ += (inner.count - 1) * inner.stride_bytes;
    made.levels_.pop_back();
  }
  return made;
}

std::vector<ByteRange> ByteRuns::ranges() const {
  std::vector<ByteRange> found;
  if (run_bytes_ == 0) return found;
  const std::uint64_t count = packed_bytes() / run_bytes_;
  found.reserve(count);
  RunCursor cursor(*this, 0);
  for (std::uint64_t run = 0; run < count; ++run, cursor.next()) {
    found.push_back({cursor.offset(), run_bytes_});
  }
  return found;
}

std::uint64_t ByteRuns::share_bytes(std::uint64_t work_bytes,
                                    std::uint64_t gap_bytes) const noexcept {
  const bool long_runs = levels_.empty() || run_bytes_ >= work_bytes;
  if (long_runs) return work_bytes;
  const std::uint64_t gap = std::min(levels_.back().stride_bytes - run_bytes_, gap_bytes);
  return std::max<std::uint64_t>(work_bytes / (run_bytes_ + gap), 1) * run_bytes_;
}

RunCursor::RunCursor(const ByteRuns& runs, std::uint64_t run)
    : levels_(runs.levels()), at_(levels_.size()), offset_(runs.offset_of(run)) {
  for (std::size_t i = levels_.size(); i-- > 0; run /= levels_[i].count) {
    at_[i] = run % levels_[i].count;
  }
}

void RunCursor::next() noexcept {
  for (std::size_t i = levels_.size(); i-- > 0;) {
    const RunLevel& level = levels_[i];
    offset_ += level.stride_bytes;
    if (++at_[i] < level.count) return;
    at_[i] = 0;
    offset_ -= level.count * level.stride_bytes;
  }
}

RunReads::RunReads(const ByteRuns& runs, ByteRange packed)
    : runs_(runs),
      left_(intersect(packed, {0, runs.packed_bytes()})),
      cursor_(runs, runs.run_bytes() > 0 ? left_.offset / runs.run_bytes() : 0) {}

std::optional<RunRead> RunReads::next(std::uint64_t max_gap_bytes, std::uint64_t max_bytes) {
  if (left_.empty() || max_bytes == 0) return std::nullopt;
  const std::uint64_t run_bytes = runs_.run_bytes();
  RunRead read;
  const auto take = [&](std::uint64_t length) {
    const std::uint64_t within = left_.offset % run_bytes;
    read.range.length = cursor_.offset() + within + length - read.range.offset;
    read.packed.length += length;
    left_ = {left_.offset + length, left_.length - length};
    if (within + length == run_bytes) cursor_.next();
  };
  const std::uint64_t within = left_.offset % run_bytes;
  read.range.offset = cursor_.offset() + within;
  read.packed.offset = left_.offset;
  take(std::min({run_bytes - within, left_.length, max_bytes}));
  while (!left_.empty() && left_.offset % run_bytes == 0) {
    const std::uint64_t length = std::min(run_bytes, left_.length);
    if (cursor_.offset() - read.range.end() > max_gap_bytes) break;
    if (cursor_.offset() + length - read.range.offset > max_bytes) break;
    take(length);
  }
  return read;
}

void copy_runs(const ByteRuns& runs, const RunRead& read, const std::byte* from, std::byte* to) {
  RunReads each(runs, read.packed);
  while (const auto one = each.next(0, read.range.length)) {
    std::memcpy(to, from + (one->range.offset - read.range.offset), one->range.length);
    to += one->packed.length;
  }
}

}  // namespace shardahead
