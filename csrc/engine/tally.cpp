#include "engine/tally.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace shardahead {
namespace {

struct OfTheNode {
  explicit OfTheNode(const Claims& claims)
      : shared(claims.shared()), inflight_bytes(claims.inflight_bytes()), limit(claims.limit()) {}

  SharedFigures shared;
  std::uint64_t inflight_bytes;
  Limit limit;
};

void add_shared(Report& report, const OfTheNode& node) {
  const SharedFigures& shared = node.shared;
  report.shared_bytes += shared.done_bytes;
  report.failed_bytes += shared.failed_bytes;
  report.node_read_bytes = shared.node_read_bytes;
  report.inflight_bytes = node.inflight_bytes;
  report.limited_by = node.limit;
}

}  // namespace

Tally::Tally(const Plan& plan, const Claims& claims, Strategy strategy)
    : counted_blocks_(plan.blocks().size()), failed_blocks_(plan.blocks().size()) {
  const MutexLock lock(mutex_);
  figures_.errors.reserve(Report::kMaxErrors);  // recording one must not need memory
  for (const std::uint32_t index : claims.wanted()) {
    figures_.planned_bytes += plan.wanted_bytes(plan.blocks()[index]);
  }
  figures_.strategy = to_string(strategy);
}

void Tally::add(std::uint32_t block, std::vector<FetchResult> results, Outcome outcome) noexcept {
  const MutexLock lock(mutex_);
  const bool again = counted_blocks_[block];
  counted_blocks_[block] = true;
  if (outcome == Outcome::failed) failed_blocks_[block] = true;
  for (FetchResult& result : results) {
    if (!again) count(result);
    if (result.error) record_locked(std::move(*result.error));
  }
}

void Tally::add_failed(std::uint32_t block, std::uint64_t wanted_bytes, IoError error) noexcept {
  const MutexLock lock(mutex_);
  if (!counted_blocks_[block]) figures_.failed_bytes += wanted_bytes;
  counted_blocks_[block] = true;
  failed_blocks_[block] = true;
  record_locked(std::move(error));
}

void Tally::count(const FetchResult& result) noexcept {
  figures_.resident_bytes += result.resident_bytes;
  figures_.shared_bytes += result.shared_bytes;
  figures_.read_bytes += result.read_bytes;
  figures_.lost_bytes += result.lost_bytes;
  figures_.failed_bytes += result.failed_bytes;
}

void Tally::record(IoError error) noexcept {
  const MutexLock lock(mutex_);
  record_locked(std::move(error));
}

// Into memory that is there already.
void Tally::record_locked(IoError error) noexcept {
  ++figures_.error_count;
  if (figures_.errors.size() < Report::kMaxErrors) figures_.errors.push_back(std::move(error));
}

void Tally::add_claimed(std::uint64_t bytes) noexcept {
  const MutexLock lock(mutex_);
  claimed_bytes_ += bytes;
}

void Tally::remove_claimed(std::uint64_t bytes) noexcept {
  const MutexLock lock(mutex_);
  claimed_bytes_ -= bytes;
}

std::uint64_t Tally::claimed_bytes() const noexcept {
  const MutexLock lock(mutex_);
  return claimed_bytes_;
}

void Tally::add_cpu_seconds(double seconds) noexcept {
  const MutexLock lock(mutex_);
  figures_.cpu_seconds += seconds;
}

void Tally::add_refetched(std::uint64_t bytes) noexcept {
  const MutexLock lock(mutex_);
  figures_.refetched_bytes += bytes;
}

void Tally::add_dropped(std::uint64_t bytes) noexcept {
  const MutexLock lock(mutex_);
  figures_.dropped_bytes += bytes;
}

void Tally::set_threads(std::uint32_t threads) noexcept {
  const MutexLock lock(mutex_);
  figures_.threads = threads;
}

std::uint32_t Tally::threads() const noexcept {
  const MutexLock lock(mutex_);
  return figures_.threads;
}

bool Tally::has_failed(BlockRange blocks) const noexcept {
  const MutexLock lock(mutex_);
  for (std::uint32_t block = blocks.begin; block < blocks.end; ++block) {
    if (failed_blocks_[block]) return true;
  }
  return false;
}

void Tally::close(const Claims& claims) noexcept {
  for (const std::uint32_t block : claims.wanted()) {
    const auto standing = claims.standing({block, block + 1});
    if (!standing || !standing->failed) continue;
    const MutexLock lock(mutex_);
    failed_blocks_[block] = true;
  }
  const OfTheNode node(claims);
  const MutexLock lock(mutex_);
  if (closed_) return;
  closed_ = true;
  add_shared(figures_, node);
}

Report Tally::figures(const Claims* claims) const {
  std::optional<OfTheNode> node;
  if (claims != nullptr) node.emplace(*claims);
  const MutexLock lock(mutex_);
  Report report = figures_;
  if (!closed_ && node) add_shared(report, *node);
  report.node_read_bytes = std::max(report.node_read_bytes, report.read_bytes);
  return report;
}

}  // namespace shardahead
