#include "engine/noting.h"

#include <algorithm>

#include "node/residency.h"

namespace shardahead {
namespace {

// No readahead goes further, read_ahead_kb being 128 KiB to 16 MiB mostly. Nor is it more than has
// to be: what another program reads after the look counts as read here.
constexpr std::uint64_t kNotedAheadBytes = 64 * kMiB;
constexpr std::size_t kNotedAheadBlocks = 64;

}  // namespace

void note_resident(FileIo& io, const Plan& plan, Claims& claims, const File& file,
                   std::uint32_t block) {
  const auto& blocks = plan.blocks();
  const Block& first = blocks[block];
  const std::uint64_t end = first.range.end() + kNotedAheadBytes;
  const std::size_t last = std::min<std::size_t>(blocks.size(), block + 1 + kNotedAheadBlocks);
  for (std::uint32_t each = block; each < last; ++each) {
    const ByteRange range = blocks[each].range;
    if (blocks[each].file != first.file || range.offset >= end) return;
    if (claims.noted_resident(each)) continue;
    const auto resident_bytes = residency(io, file, range).resident_bytes;
    if (!resident_bytes) return;
    claims.note_resident(each, *resident_bytes);
  }
}

void ask_for(FileIo& io, const Plan& plan, Claims& claims, const File& file, std::uint32_t index,
             const std::vector<ByteRange>& ranges) {
  for (const ByteRange& range : ranges) {
    const BlockRange blocks = plan.blocks_under(index, range);
    for (std::uint32_t block = blocks.begin; block < blocks.end; ++block) {
      note_resident(io, plan, claims, file, block);
    }
    io.fadvise_willneed(file.descriptor(), range);
  }
}

}  // namespace shardahead
