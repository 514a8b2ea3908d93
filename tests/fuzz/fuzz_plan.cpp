// Any sizes, spans and options: refused, or a plan whose blocks tile the files in order, of which
// every wanted byte is some rank's, once.
#include <stdexcept>

#include "fuzz_input.h"
#include "plan/plan.h"

using namespace shardahead;
using fuzzing::require;

namespace {

// Small, as a rule, and large now and then: the first byte tells how many bytes follow.
std::uint64_t size_from(fuzzing::FuzzInput& input) { return input.number(input.byte() % 9); }

std::vector<PlannedFile> files_from(fuzzing::FuzzInput& input) {
  std::vector<PlannedFile> files(input.byte() % 8);
  for (PlannedFile& file : files) {
    file.size_bytes = size_from(input);
    const std::uint8_t spans = input.byte() % 8;
    if (spans == 7) continue;  // all of it
    std::vector<ByteRange>& wanted = file.spans.emplace();
    for (std::uint8_t i = 0; i < spans; ++i) {
      const std::uint64_t offset = size_from(input);
      wanted.push_back({offset, size_from(input)});
    }
  }
  return files;
}

// More blocks than a fuzzer has time for, and fewer than are refused.
bool is_long(const std::vector<PlannedFile>& files, std::uint64_t block_bytes) {
  constexpr std::uint64_t kLongBlocks = 2000;
  std::uint64_t total_bytes = 0;
  for (const PlannedFile& file : files) {
    total_bytes = ByteRange{total_bytes, file.size_bytes}.end();
  }
  const std::uint64_t blocks = total_bytes / std::max(block_bytes, kMinBlockBytes);
  return blocks > kLongBlocks && blocks <= kMaxBlocks && total_bytes <= kMaxBlocks * kMaxBlockBytes;
}

void check_tiles(const Plan& plan) {
  std::uint64_t position = 0;
  for (const Block& block : plan.blocks()) {
    require(!block.range.empty(), "no block is empty");
    require(plan.position(block) == position, "blocks follow upon each other");
    require(block.range.end() <= plan.files()[block.file].size_bytes, "a block lies in its file");
    position += block.range.length;
  }
  require(position == plan.total_bytes(), "the blocks are all of it");
}

// Whose block it is, counted over all ranks.
void check_shares(const Plan& plan, std::uint8_t local_size) {
  for (const Partition partition : {Partition::block, Partition::file}) {
    std::vector<unsigned> takers(plan.blocks().size());
    for (std::uint8_t rank = 0; rank < local_size; ++rank) {
      for (const std::uint32_t block : share_of(plan, partition, rank, local_size)) {
        ++takers[block];
      }
    }
    for (std::size_t i = 0; i < takers.size(); ++i) {
      const bool wanted = plan.wanted_bytes(plan.blocks()[i]) > 0;
      require(takers[i] == (wanted ? 1 : 0), "a wanted block is one rank's, another is no one's");
    }
  }
}

void check_wanted(const Plan& plan) {
  std::vector<std::uint64_t> wanted_bytes(plan.files().size());
  for (const Block& block : plan.blocks()) {
    for (const ByteRange& part : plan.wanted(block)) {
      require(!part.empty() && intersect(part, block.range) == part, "a part lies in its block");
      wanted_bytes[block.file] += part.length;
    }
  }
  for (std::size_t file = 0; file < plan.files().size(); ++file) {
    const PlannedFile& planned = plan.files()[file];
    std::uint64_t expected = planned.spans ? 0 : planned.size_bytes;
    if (planned.spans) {
      for (const ByteRange& span : *planned.spans) expected += span.length;
    }
    require(wanted_bytes[file] == expected, "the wanted parts of the blocks are the spans");
  }
}

void check_lookups(const Plan& plan, fuzzing::FuzzInput& input) {
  if (plan.files().empty()) return;
  const auto file = static_cast<std::uint32_t>(input.byte() % plan.files().size());
  const std::uint64_t offset = size_from(input);
  const ByteRange range = {offset, size_from(input)};
  const BlockRange under = plan.blocks_under(file, range);
  require(under.begin <= under.end && under.end <= plan.blocks().size(), "blocks that there are");
  for (std::uint32_t i = under.begin; i < under.end; ++i) {
    require(plan.blocks()[i].file == file, "blocks of that file");
    require(!intersect(plan.blocks()[i].range, range).empty(), "blocks under the range");
  }
  for (const FileRange& part : plan.files_under(range)) {
    require(part.range.end() <= plan.files()[part.file].size_bytes, "a part lies in its file");
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  fuzzing::FuzzInput input(bytes, size);
  PlanOptions options;
  options.block_bytes = size_from(input);
  options.head_block_bytes = size_from(input);
  options.head_blocks_per_size = static_cast<std::uint32_t>(size_from(input));
  const auto local_size = static_cast<std::uint8_t>(1 + input.byte() % 4);
  std::vector<PlannedFile> files = files_from(input);
  if (is_long(files, options.block_bytes)) return -1;
  try {
    const Plan plan(std::move(files), options);
    check_tiles(plan);
    check_shares(plan, local_size);
    check_wanted(plan);
    check_lookups(plan, input);
  } catch (const std::invalid_argument&) {
    return 0;
  }
  return 0;
}
