#include "plan/plan.h"

#include <stdexcept>

namespace shardahead {
namespace {

constexpr std::uint64_t kBlockUnit = 4 * kKiB;
constexpr std::uint64_t kMaxTotalBytes = kMaxBlocks * kMaxBlockBytes;

void require(bool holds, const std::string& message) {
  if (!holds) throw std::invalid_argument(message);
}

void check(const PlanOptions& options) {
  require(options.block_bytes >= kMinBlockBytes && options.block_bytes <= kMaxBlockBytes,
          "block_size must be between 4096 (4 KiB) and 1073741824 (1 GiB) bytes, not " +
              std::to_string(options.block_bytes));
  require(
      options.head_block_bytes >= kMinBlockBytes,
      "head_block_bytes must be at least 4096, not " + std::to_string(options.head_block_bytes));
  require(options.head_blocks_per_size <= kMaxHeadBlocksPerSize,
          "head_blocks_per_size must be at most 1024, not " +
              std::to_string(options.head_blocks_per_size));
}

// The sizes of consecutive blocks: small at the head of the plan, then block_bytes for ever.
class BlockSizes {
 public:
  explicit BlockSizes(const PlanOptions& options)
      : largest_(align_down(options.block_bytes, kBlockUnit)),
        size_(std::min(largest_, align_down(options.head_block_bytes, kBlockUnit))),
        per_size_(options.head_blocks_per_size) {
    if (per_size_ == 0) size_ = largest_;
  }

  std::uint64_t next() {
    if (size_ < largest_ && count_ == per_size_) {
      size_ = std::min(largest_, size_ * 2);
      count_ = 0;
    }
    ++count_;
    return size_;
  }

 private:
  std::uint64_t largest_;
  std::uint64_t size_;
  std::uint32_t per_size_;
  std::uint32_t count_ = 0;
};

}  // namespace

Plan::Plan(std::vector<PlannedFile> files, const PlanOptions& options) : files_(std::move(files)) {
  check(options);
  file_positions_.reserve(files_.size());
  for (PlannedFile& file : files_) {
    file_positions_.push_back(total_bytes_);
    // A filesystem may say any size: sparse files of 8 EiB cost nothing to make.
    require(file.size_bytes <= kMaxTotalBytes - total_bytes_,
            std::string("the files have more than ")
                .append(std::to_string(kMaxTotalBytes))
                .append(" bytes together"));
    total_bytes_ += file.size_bytes;
    if (!file.spans) continue;
    file.spans = intersect(merge_ranges(std::move(*file.spans)), {0, file.size_bytes});
  }
  const std::uint64_t unit = align_down(options.block_bytes, kBlockUnit);
  const std::uint64_t at_least = total_bytes_ / unit;
  require(at_least <= kMaxBlocks, "block_size " + std::to_string(options.block_bytes) + " gives " +
                                      std::to_string(at_least) + " blocks; the most is " +
                                      std::to_string(kMaxBlocks));
  blocks_.reserve(at_least + files_.size() + 64);
  BlockSizes sizes(options);
  for (std::uint32_t file = 0; file < files_.size(); ++file) {
    const std::uint64_t end = files_[file].size_bytes;
    for (std::uint64_t offset = 0; offset < end;) {
      // Up to a multiple of its size, so that after the head, too, no block shares a stripe.
      const std::uint64_t size = sizes.next();
      const std::uint64_t length = std::min(size - offset % size, end - offset);
      blocks_.push_back({file, {offset, length}});
      offset += length;
    }
  }
}

std::vector<ByteRange> Plan::wanted(const Block& block) const {
  const auto& spans = files_[block.file].spans;
  if (!spans) return {block.range};
  return intersect(*spans, block.range);
}

std::uint64_t Plan::wanted_bytes(const Block& block) const noexcept {
  const auto& spans = files_[block.file].spans;
  if (!spans) return block.range.length;
  std::uint64_t bytes = 0;
  auto span = std::ranges::partition_point(
      *spans, [&](const ByteRange& each) { return each.end() <= block.range.offset; });
  for (; span != spans->end() && span->offset < block.range.end(); ++span) {
    bytes += intersect(*span, block.range).length;
  }
  return bytes;
}

std::uint64_t Plan::wanted_bytes() const noexcept {
  std::uint64_t bytes = 0;
  for (const Block& block : blocks_) bytes += wanted_bytes(block);
  return bytes;
}

BlockRange Plan::blocks_under(std::uint32_t file, ByteRange range) const {
  range = intersect(range, {0, files_[file].size_bytes});
  if (range.empty()) return {};
  const auto holding = [&](std::uint64_t offset) {
    const auto last_byte = [&](const Block& block) {
      return position(block) + block.range.length - 1;
    };
    const auto found = std::ranges::lower_bound(blocks_, position(file, offset), {}, last_byte);
    return static_cast<std::uint32_t>(found - blocks_.begin());
  };
  return {holding(range.offset), holding(range.end() - 1) + 1};
}

std::vector<FileRange> Plan::files_under(ByteRange positions) const {
  std::vector<FileRange> found;
  const auto after = std::ranges::upper_bound(file_positions_, positions.offset);
  auto file =
      static_cast<std::uint32_t>(std::max<std::ptrdiff_t>(after - file_positions_.begin() - 1, 0));
  for (; file < files_.size() && file_positions_[file] < positions.end(); ++file) {
    const std::uint64_t begin = file_positions_[file];
    const ByteRange part = intersect(positions, {begin, files_[file].size_bytes});
    if (!part.empty()) found.push_back({file, {part.offset - begin, part.length}});
  }
  return found;
}

const char* to_string(Partition partition) noexcept {
  return partition == Partition::block ? "block" : "file";
}

std::optional<Partition> partition_from(std::string_view name) noexcept {
  if (name == "block") return Partition::block;
  if (name == "file") return Partition::file;
  return std::nullopt;
}

void require_local_rank(std::int64_t local_rank, std::int64_t local_size) {
  require(local_size >= 1, "local_size must be at least 1, not " + std::to_string(local_size));
  require(local_rank >= 0 && local_rank < local_size,
          "local_rank must be between 0 and local_size - 1 = " + std::to_string(local_size - 1) +
              ", not " + std::to_string(local_rank));
}

std::vector<std::uint32_t> share_of(const Plan& plan, Partition partition, std::int64_t local_rank,
                                    std::int64_t local_size) {
  require_local_rank(local_rank, local_size);
  const auto rank = static_cast<std::uint64_t>(local_rank);
  const auto size = static_cast<std::uint64_t>(local_size);
  const std::vector<Block>& blocks = plan.blocks();
  std::vector<std::uint32_t> share;
  share.reserve(blocks.size() / size + 1);
  for (std::uint32_t index = 0; index < blocks.size(); ++index) {
    const std::uint64_t dealt = partition == Partition::block ? index : blocks[index].file;
    if (dealt % size == rank && plan.wanted_bytes(blocks[index]) > 0) share.push_back(index);
  }
  return share;
}

}  // namespace shardahead
