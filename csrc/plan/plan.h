// plan: the blocks of a checkpoint in the order in which they will be consumed, and whose they are.
// A pure value: no I/O, no clock; the same input gives the same plan on every rank. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/byte_range.h"

namespace shardahead {

inline constexpr std::uint64_t kMinBlockBytes = 4 * kKiB;
inline constexpr std::uint64_t kMaxBlockBytes = 1 * kGiB;
inline constexpr std::uint64_t kMaxBlocks = std::uint64_t{1} << 24U;  // 256 TiB at the default
inline constexpr std::uint32_t kMaxHeadBlocksPerSize = 1024;  // else kMaxBlocks would bound nothing

struct PlanOptions {
  // What is claimed and advised at once. Rounded down to whole pages of 4 KiB. Within a file blocks
  // end at multiples of their size.
  std::uint64_t block_bytes = 16 * kMiB;
  // The first blocks of the plan are smaller, so that the first tensors come early: this many of
  // each size, from head_block_bytes doubling up to block_bytes.
  std::uint64_t head_block_bytes = 2 * kMiB;
  std::uint32_t head_blocks_per_size = 8;
};

struct PlannedFile {
  std::uint64_t size_bytes = 0;
  // The wanted bytes, sorted and merged; without it the whole file is wanted.
  std::optional<std::vector<ByteRange>> spans;
};

// Blocks tile the files whatever is wanted, so that ranks that want different bytes agree on them.
struct Block {
  std::uint32_t file = 0;
  ByteRange range;
};

// Indices into a plan's blocks: begin .. end - 1.
struct BlockRange {
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
};

struct FileRange {
  std::uint32_t file = 0;
  ByteRange range;
};

class Plan {
 public:
  // Throws std::invalid_argument, naming the option and its value.
  Plan(std::vector<PlannedFile> files, const PlanOptions& options);

  [[nodiscard]] const std::vector<PlannedFile>& files() const noexcept { return files_; }
  [[nodiscard]] const std::vector<Block>& blocks() const noexcept { return blocks_; }
  [[nodiscard]] std::uint64_t total_bytes() const noexcept { return total_bytes_; }

  // The wanted parts of a block, in order; empty where nothing of it is wanted.
  [[nodiscard]] std::vector<ByteRange> wanted(const Block& block) const;
  [[nodiscard]] std::uint64_t wanted_bytes(const Block& block) const noexcept;
  // Of all blocks.
  [[nodiscard]] std::uint64_t wanted_bytes() const noexcept;
  // The blocks that hold bytes of this range of a file.
  [[nodiscard]] BlockRange blocks_under(std::uint32_t file, ByteRange range) const;
  // The parts of files that lie in this range of positions.
  [[nodiscard]] std::vector<FileRange> files_under(ByteRange positions) const;
  // Bytes of the checkpoint that come before this place in consumption order.
  [[nodiscard]] std::uint64_t position(std::uint32_t file, std::uint64_t offset) const {
    return file_positions_[file] + offset;
  }
  [[nodiscard]] std::uint64_t position(const Block& block) const {
    return position(block.file, block.range.offset);
  }

 private:
  std::vector<PlannedFile> files_;
  std::vector<std::uint64_t> file_positions_;
  std::vector<Block> blocks_;
  std::uint64_t total_bytes_ = 0;
};

// How the ranks of a node share the blocks, when they do not talk to each other.
enum class Partition { block, file };  // block i, or all of file i, to local rank i mod local size

const char* to_string(Partition partition) noexcept;
std::optional<Partition> partition_from(std::string_view name) noexcept;

// Throws std::invalid_argument where local_rank is not in 0 .. local_size - 1.
void require_local_rank(std::int64_t local_rank, std::int64_t local_size);

// Indices of the wanted blocks of one local rank, ascending. Throws as require_local_rank does.
std::vector<std::uint32_t> share_of(const Plan& plan, Partition partition, std::int64_t local_rank,
                                    std::int64_t local_size);

}  // namespace shardahead
