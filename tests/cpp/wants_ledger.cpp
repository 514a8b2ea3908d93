#include "wants_ledger.h"

#include <algorithm>
#include <utility>

#include "board/grains.h"
#include "plan/request_cost.h"

namespace shardahead::testing {
namespace {

std::uint64_t bytes_of(const std::vector<ByteRange>& ranges) {
  std::uint64_t bytes = 0;
  for (const ByteRange& range : ranges) bytes += range.length;
  return bytes;
}

bool covers(const std::vector<ByteRange>& ranges, const std::vector<ByteRange>& parts) {
  return std::ranges::all_of(parts, [&](const ByteRange& part) {
    return bytes_of(intersect(ranges, part)) == part.length;
  });
}

// Each grown to whole grains.
std::vector<ByteRange> in_grains(std::vector<ByteRange> ranges, std::uint64_t grain_bytes) {
  for (ByteRange& range : ranges) range = grow_to_units(range, grain_bytes, kNoEnd);
  return merge_ranges(std::move(ranges));
}

std::vector<ByteRange> wanted_in(const std::vector<std::shared_ptr<const Plan>>& plans,
                                 const Block& block) {
  std::vector<ByteRange> ranges;
  for (const auto& plan : plans) {
    const auto more = plan->wanted(block);
    ranges.insert(ranges.end(), more.begin(), more.end());
  }
  return merge_ranges(std::move(ranges));
}

}  // namespace

void WantsLedger::join(std::shared_ptr<const Plan> plan, bool on_board, bool anew) {
  if (on_board && anew) on_board_.clear();
  if (on_board) on_board_.push_back(plan);
  ever_.push_back(std::move(plan));
}

std::optional<std::string> WantsLedger::wrong_with(const Plan& plan, const Claim& claim,
                                                   const std::vector<ByteRange>& ranges,
                                                   bool on_board) const {
  const Block& block = plan.blocks()[claim.block];
  const auto own = plan.wanted(block);
  const auto wanting = std::ranges::count_if(
      on_board_, [&](const auto& each) { return each->wanted_bytes(block) > 0; });
  if (ranges != merge_ranges(ranges)) return "is to be fetched in no order";
  if (!on_board || claim.done_before || wanting == 1) {
    if (ranges != own) return "is to be fetched otherwise than its one taker wants it";
    return std::nullopt;
  }
  if (!covers(ranges, wanted_in(on_board_, block)))
    return "is to be fetched without what another wants of it";
  // The grains at its ends may lie in the next blocks, too, where something of them is wanted.
  const std::uint64_t grain_bytes = Grains(plan).bytes();
  const ByteRange around = grow_to_units(block.range, grain_bytes, kNoEnd);
  const auto grains = in_grains(wanted_in(on_board_, {block.file, around}), grain_bytes);
  if (!covers(grains, ranges)) return "is to be fetched with what no one wants of it";
  return std::nullopt;
}

std::uint64_t WantsLedger::between(const Plan& plan, bool on_board, std::uint64_t from,
                                   std::uint64_t to) const {
  if (from >= to) return 0;
  std::uint64_t bytes = 0;
  for (const auto& [file, range] : plan.files_under({from, to - from})) {
    const Block part = {file, range};
    bytes += bytes_of(on_board ? wanted_in(on_board_, part) : plan.wanted(part));
  }
  return bytes;
}

std::optional<FileRange> WantsLedger::fetched_for_no_one(
    const PageCache& cache, const std::vector<FileRange>& known) const {
  for (std::uint32_t file = 0; file < cache.files(); ++file) {
    const ByteRange whole = {0, cache.size_bytes(file)};
    auto allowed = wanted_in(ever_, {file, whole});
    if (!ever_.empty()) allowed = in_grains(std::move(allowed), Grains(*ever_.front()).bytes());
    allowed = requests_for(allowed, kMostGapBytes);
    // A read takes the kernel's window from where it is, in folios.
    for (ByteRange& range : allowed) range.length += cache.options().read_window_bytes;
    for (const FileRange& there : known) {
      if (there.file == file) allowed.push_back(there.range);
    }
    allowed = in_grains(std::move(allowed), PageCache::kFolioBytes);
    ByteRange rest = whole;
    for (const ByteRange& range : allowed) {
      const ByteRange gap = intersect(rest, {0, range.offset});
      if (const auto came = cache.first_come(file, gap)) return FileRange{file, *came};
      rest = intersect(whole, {range.end(), kNoEnd});
    }
    if (const auto came = cache.first_come(file, rest)) return FileRange{file, *came};
  }
  return std::nullopt;
}

}  // namespace shardahead::testing
