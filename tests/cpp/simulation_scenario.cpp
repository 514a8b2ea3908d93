#include "simulation_scenario.h"

#include <algorithm>
#include <cerrno>
#include <numeric>

namespace shardahead::testing {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

std::chrono::nanoseconds microseconds_of(std::uint64_t count) {
  return microseconds(static_cast<std::int64_t>(count));
}

}  // namespace

Scenario::Scenario(std::uint64_t seed) {
  Random random(seed);
  // Numbers of its own: those who read nothing by themselves are as they were without them.
  Random for_reading(seed + 0x9e3779b9);
  reads_ = for_reading.chance(25);
  large_ = random.chance(15) && !reads_;
  draw_files(random);
  draw_node(random);
  const bool faulty = random.chance(70);
  if (faulty && random.chance(12)) board = static_cast<BoardState>(random.between(1, 4));
  if (random.chance(25)) set_inflight_bytes = plan.block_bytes * random.between(1, 8);
  const auto count = static_cast<std::size_t>(random.between(1, 8));
  while (ranks.size() < count) ranks.push_back(draw_rank(random, faulty));
  if (random.chance(30)) warm.push_back(draw_range(random));
  if (reads_) draw_reading(for_reading);
  Random for_wants(seed + 0x7f4a7c15);  // and these
  if (for_wants.chance(30) && !reads_) draw_wants(for_wants);
  Random for_rate(seed + 0x51ed27);  // numbers of its own, too
  if (for_rate.chance(20)) rate_limit_bytes_per_s = for_rate.spread(2 * kMiB, 1 * kGiB);
  Random for_doubts(seed + 0x2545f491);
  if (for_doubts.chance(30)) {
    for (RankScenario& rank : ranks) rank.doubts = for_doubts.chance(70);
  }
  // Where residency is not told, what was advised and lost looks like what was not.
  const bool told = node.cachestat_errno == 0 || node.owner;
  bool loses = node.drop_advice_percent > 0 || node.advise_clip_bytes < kDefaultStepBytes;
  for (const RankScenario& rank : ranks) {
    loses |= std::ranges::any_of(rank.faults, [](const Fault& fault) {
      return fault.kind == FaultKind::lose_advice || fault.operation == Operation::cachestat;
    });
  }
  blind = loses && !told;
}

void Scenario::draw_files(Random& random) {
  const std::uint64_t files = random.between(1, 4);
  plan.block_bytes =
      large_ ? random.spread(1 * kMiB, 4 * kMiB) : random.spread(16 * kKiB, 256 * kKiB);
  // What is read is compared byte by byte, in real time.
  if (reads_) plan.block_bytes = std::min(plan.block_bytes, 32 * kKiB);
  if (random.chance(70)) plan.block_bytes = align_down(plan.block_bytes, PageCache::kFolioBytes);
  plan.head_block_bytes = std::max(plan.block_bytes >> random.below(3), kMinBlockBytes);
  plan.head_blocks_per_size = static_cast<std::uint32_t>(random.below(4));
  const std::uint64_t blocks = random.between(2, large_ ? 12 : 40);
  for (std::uint64_t file = 0; file < files; ++file) {
    std::uint64_t bytes = plan.block_bytes * random.between(1, blocks);
    if (random.chance(50)) bytes -= random.below(plan.block_bytes);
    sizes_bytes.push_back(bytes);
  }
}

void Scenario::draw_node(Random& random) {
  const std::uint64_t total =
      std::accumulate(sizes_bytes.begin(), sizes_bytes.end(), std::uint64_t{0});
  node.bytes_per_second = random.spread(20 * kMiB, 4 * kGiB);
  node.round_trip = microseconds_of(random.spread(50, 20'000));
  node.read_window_bytes = random.spread(16 * kKiB, 1 * kMiB);
  node.advise_clip_bytes = random.spread(64 * kKiB, 8 * kMiB);
  if (random.chance(10)) node.advise_clip_bytes = 0;
  if (random.chance(50)) node.populate_bytes = random.spread(128 * kKiB, kPopulateBytes);
  if (random.chance(10)) {
    node.drop_advice_percent = static_cast<std::uint32_t>(random.between(5, 80));
  }
  if (random.chance(15)) {
    node.cachestat_errno = random.chance(50) ? EPERM : ENOSYS;
    node.owner = random.chance(50);
  }
  if (random.chance(10)) {
    const FileRange slow = draw_range(random);
    node.slow_file = slow.file;
    node.slow_range = slow.range;
    node.slow_factor = static_cast<std::uint32_t>(random.spread(10, 500));
  }
  if (random.chance(large_ ? 80 : 15)) {
    memory_is_short = true;
    node.memory_bytes = std::max(total * random.between(20, 90) / 100, 8 * plan.block_bytes);
  }
}

// Ranks that want parts of the same blocks: a slice of each tensor, or some tensors of many; some
// of them come when others have begun.
void Scenario::draw_wants(Random& random) {
  const std::uint64_t total =
      std::accumulate(sizes_bytes.begin(), sizes_bytes.end(), std::uint64_t{0});
  const std::uint64_t least = std::max(8 * kKiB, total / 64);
  const std::uint64_t stretch = random.spread(least, std::max(least, 4 * plan.block_bytes));
  const std::uint64_t slices = random.between(1, ranks.size() + 1);
  const std::uint64_t overlap = random.chance(50) ? 0 : random.below(stretch / slices + 1);
  const bool chosen = random.chance(40);
  for (std::uint32_t rank = 0; rank < ranks.size(); ++rank) {
    RankScenario& each = ranks[rank];
    if (random.chance(40)) each.starts_after = microseconds_of(random.spread(1'000, 2'000'000));
    if (random.chance(15)) continue;
    each.spans.assign(sizes_bytes.size(), {});
    for (std::uint32_t file = 0; file < sizes_bytes.size(); ++file) {
      for (std::uint64_t at = 0; at < sizes_bytes[file]; at += stretch) {
        const std::uint64_t slice = rank % slices * (stretch / slices);
        if (chosen && !random.chance(35)) continue;
        if (chosen) each.spans[file].push_back({at, stretch});
        if (!chosen) each.spans[file].push_back({at + slice, stretch / slices + overlap});
      }
    }
  }
}

void Scenario::draw_reading(Random& random) {
  constexpr std::array kMounts = {SimulatedMount::keeps, SimulatedMount::emptied_by_open,
                                  SimulatedMount::uncached, SimulatedMount::emptied_by_open};
  node.mount = kMounts[random.below(kMounts.size())];
  const bool keeps = node.mount == SimulatedMount::keeps;
  const bool together = !keeps && random.chance(80);
  const bool in_step = together && random.chance(60);
  if (!keeps) warm.clear();
  for (RankScenario& rank : ranks) {
    // Beside those who prefetch, where that is of use.
    if (keeps && random.chance(30)) continue;
    rank.reading = {.together = together,
                    .ahead_bytes = random.spread(16 * kKiB, 2 * kMiB),
                    .piece_bytes = random.spread(4 * kKiB, 256 * kKiB)};
    rank.consumer = true;
    rank.spans.clear();
    if (in_step) rank.starts_after = microseconds_of(random.below(300'000));
    draw_reading_faults(random, rank);
  }
}

// Of mappings: what cannot be copied out of them is read, and where that fails, too, it is told.
void Scenario::draw_reading_faults(Random& random, RankScenario& rank) const {
  if (!rank.reading->together || !random.chance(30)) return;
  std::vector<Fault> of_mappings;
  for (Fault fault : rank.faults) {
    if (fault.operation != Operation::pread || fault.kind != FaultKind::fail) continue;
    fault.operation = Operation::copy_mapped;
    of_mappings.push_back(std::move(fault));
  }
  if (random.chance(40)) {
    const FileRange range = draw_range(random);
    of_mappings.push_back({.operation = random.chance(50) ? Operation::map : Operation::copy_mapped,
                           .path_suffix = RankFileIo::path(range.file),
                           .from_offset = range.range.offset,
                           .to_offset = range.range.end(),
                           .times = random.between(1, 4),
                           .errno_value = ENOMEM});
  }
  rank.faults.insert(rank.faults.end(), of_mappings.begin(), of_mappings.end());
}

FileRange Scenario::draw_range(Random& random) const {
  const auto file = static_cast<std::uint32_t>(random.below(sizes_bytes.size()));
  const std::uint64_t offset = random.below(sizes_bytes[file]);
  return {file, {offset, random.between(1, sizes_bytes[file] - offset)}};
}

RankScenario Scenario::draw_rank(Random& random, bool faulty) {
  RankScenario rank;
  rank.starts_after = microseconds_of(random.below(2000));
  if (random.chance(20)) rank.starts_after = microseconds_of(random.spread(10'000, 20'000'000));
  rank.threads = static_cast<std::uint32_t>(random.between(1, 4));
  rank.max_open_files = random.between(1, 4);
  rank.strategy =
      random.chance(60) ? Strategy::automatic : kStrategies[random.below(kStrategies.size())];
  rank.consumer = random.chance(75);
  rank.releases = random.chance(80);
  rank.stays = random.chance(80);
  // At most some hundred of them.
  const std::uint64_t total =
      std::accumulate(sizes_bytes.begin(), sizes_bytes.end(), std::uint64_t{0});
  const std::uint64_t least = std::max(4 * kKiB, total / 128);
  rank.tensor_bytes = random.spread(least, std::max(least, 4 * plan.block_bytes));
  rank.work_per_mebibyte = microseconds_of(random.spread(100, 100'000));
  if (memory_is_short && random.chance(80)) {
    rank.window_bytes.reset();
    rank.budget_bytes = node.memory_bytes * random.between(60, 100) / 100;
  } else if (random.chance(50)) {
    rank.window_bytes = random.between(1, 16 * plan.block_bytes);
  }
  if (random.chance(20)) {
    for (std::uint32_t file = 0; file < sizes_bytes.size(); ++file) {
      rank.spans.emplace_back();
      for (std::uint64_t count = random.below(6); count > 0; --count) {
        const std::uint64_t offset = random.below(sizes_bytes[file]);
        rank.spans.back().push_back({offset, random.between(1, 2 * plan.block_bytes)});
      }
    }
  }
  if (random.chance(5)) rank.most_threads = static_cast<std::uint32_t>(random.below(4));
  if (random.chance(5)) rank.pauses_at = random.between(1, 20);
  if (random.chance(5)) rank.interrupted_at = random.between(1, 10);
  if (random.chance(15)) rank.killed_at = random.spread(1, 4000);
  if (random.chance(30)) rank.locks_outlive_by = microseconds_of(random.spread(10'000, 60'000'000));
  if (random.chance(10)) rank.cancelled_at = random.spread(1, 4000);
  if (random.chance(12)) rank.stopped_at = random.spread(1, 4000);
  rank.stopped_for = microseconds_of(random.spread(5'000'000, 600'000'000));
  rank.continues = random.chance(70);
  if (faulty) draw_faults(random, rank);
  return rank;
}

void Scenario::draw_faults(Random& random, RankScenario& rank) {
  constexpr std::array kErrors = {EIO, ESTALE, EINTR, EAGAIN, ENOMEM};
  if (random.chance(8)) rank.board = random.chance(50) ? BoardPlace::missing : BoardPlace::full;
  if (random.chance(15)) rank.stalls.push_back(random.spread(1, 1000));
  const std::uint64_t count = random.chance(60) ? random.below(4) : 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const FileRange range = draw_range(random);
    Fault fault;
    fault.path_suffix = RankFileIo::path(range.file);
    fault.from_offset = range.range.offset;
    fault.to_offset = fault.from_offset + random.between(1, 4 * plan.block_bytes);
    fault.times = random.chance(50) ? random.between(1, 4) : Fault::kForEver;
    fault.errno_value = kErrors[random.below(kErrors.size())];
    switch (random.below(8)) {
      case 0:
      case 1: rank.may_fail = true; break;  // a read fails
      case 2:
        fault.kind = FaultKind::short_read;
        fault.limit_bytes = random.spread(1 * kKiB, 64 * kKiB);
        break;
      case 3:
        fault.kind = FaultKind::end_of_file;
        fault.limit_bytes = fault.from_offset;
        rank.may_fail = true;
        break;
      case 4:
        fault.operation = random.chance(70)   ? Operation::fadvise_willneed
                          : random.chance(50) ? Operation::readahead
                                              : Operation::fault_in_huge_pages;
        if (random.chance(50)) fault.kind = FaultKind::lose_advice;
        rank.may_fail |= fault.kind == FaultKind::fail;
        break;
      case 5:
        fault.operation = Operation::cachestat;
        fault.kind = FaultKind::lie;
        lies.push_back({range.file, {fault.from_offset, fault.to_offset - fault.from_offset}});
        break;
      case 6:
        fault.operation = Operation::cachestat;
        fault.kind = FaultKind::deny;
        break;
      default:
        fault.operation = random.chance(50) ? Operation::open : Operation::cachestat;
        fault.errno_value = fault.operation == Operation::open ? EMFILE : EPERM;
        rank.may_fail |= fault.operation == Operation::open;
    }
    rank.faults.push_back(fault);
  }
}

}  // namespace shardahead::testing
