// The pace of a board: what may be in flight, how long a block takes at present, and who shows no
// life by that measure.
#include "board/board.h"

namespace shardahead {

void BoardClaims::show_life() const noexcept {
  // Relaxed is enough: others only look whether the word has changed.
  memory_.header->life[file_.slot()].fetch_add(1, std::memory_order_relaxed);
}

bool BoardClaims::is_silent(std::uint32_t slot, Runtime::Time now) {
  if (slot >= kBoardSlots) return false;
  const std::uint32_t life = memory_.header->life[slot].load(std::memory_order_relaxed);
  return others_.is_silent(slot, life, memory_.block_time(), now);
}

// Where two write at the same time one of the values is lost, which a mean can bear.
void BoardClaims::note_pace(Runtime::Time taken) {
  using std::chrono::microseconds;
  const auto latest = std::chrono::duration_cast<microseconds>(runtime_.now() - taken);
  memory_.header->block_microseconds =
      static_cast<std::uint32_t>(mean_block_time(memory_.block_time(), latest).count());
}

void BoardClaims::watch_throughput(std::uint32_t block, std::uint64_t read_bytes) {
  const std::uint64_t all_bytes = memory_.header->read_bytes.fetch_add(read_bytes) + read_bytes;
  if (memory_.header->set_inflight_bytes != 0) return;
  const MutexLock lock(mutex_);
  const std::uint32_t mine = file_.slot() + 1;
  std::uint32_t watcher = 0;
  if (memory_.header->watcher != mine) {
    if (!memory_.header->watcher.compare_exchange_strong(watcher, mine)) return;
    throughput_.resume(memory_.inflight_bytes(), limit());
  }
  const std::uint64_t block_bytes = plan_->blocks()[block].range.length;
  const auto found_bytes = throughput_.settle(block_bytes, all_bytes, runtime_.now());
  if (!found_bytes) return;
  memory_.header->inflight_bytes = *found_bytes;
  memory_.header->limit = static_cast<std::uint32_t>(throughput_.limit());
}

std::uint64_t BoardClaims::claimed_bytes(const WantedSums& sums, std::uint32_t begin,
                                         std::uint32_t end, Runtime::Time now) {
  std::uint64_t bytes = 0;
  for (std::uint32_t block = begin; block < end; ++block) {
    const std::uint16_t state = memory_.states[block];
    if (!is_claimed(state) || is_silent(static_cast<std::uint32_t>(state - kClaimed), now))
      continue;
    bytes += sums.of(block);
  }
  return bytes;
}

bool BoardClaims::is_left_free(const WantedSums& sums, std::uint32_t begin,
                               std::uint32_t end) const noexcept {
  for (std::uint32_t block = begin; block < end; ++block) {
    if (memory_.states[block] == kFree && sums.of(block) != 0) return true;
  }
  return false;
}

std::uint64_t BoardClaims::inflight_bytes() const noexcept { return memory_.inflight_bytes(); }

Limit BoardClaims::limit() const noexcept {
  if (memory_.header->set_inflight_bytes != 0) return Limit::inflight_bytes;
  const std::uint32_t told = memory_.header->limit;
  for (const Limit found : {Limit::storage, Limit::threads}) {
    if (told == static_cast<std::uint32_t>(found)) return found;
  }
  return Limit::unknown;
}

// What is owed at one rate means something else at another: the first who has a limit gives it.
std::atomic<RateLimit::PaidUntil>* BoardClaims::rate_account(std::uint64_t bytes_per_s) noexcept {
  std::uint64_t given = 0;
  memory_.header->account_bytes_per_s.compare_exchange_strong(given, bytes_per_s);
  return given == 0 || given == bytes_per_s ? &memory_.header->rate_account : nullptr;
}

}  // namespace shardahead
