// The pace of a board: what may be in flight, how long a block takes at present, and who shows no
// life by that measure.
#include <algorithm>

#include "board/board.h"

namespace shardahead {

void BoardClaims::show_life() const noexcept {
  // Relaxed is enough: others only look whether the word has changed.
  memory_.header->life[file_.slot()].fetch_add(1, std::memory_order_relaxed);
}

bool BoardClaims::is_silent(std::uint32_t slot, Runtime::Time now) {
  if (slot >= kBoardSlots || slot == file_.slot()) return false;
  const std::uint32_t life = memory_.header->life[slot].load(std::memory_order_relaxed);
  return lives_[slot].silence(life, now) >= silence_allowed(memory_.block_time());
}

Runtime::Time BoardClaims::held_since(std::size_t i, std::uint16_t state, Runtime::Time now) {
  Held& held = held_[i];
  if (held.state != state) held = {now, state};
  return held.since;
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
    climb_.resume(memory_.inflight_bytes());
  }
  const auto now = runtime_.now();
  const std::uint64_t bytes = all_bytes - std::min(all_bytes, epoch_started_bytes_);
  if (epoch_started_bytes_ == 0) {
    // The first epoch begins with the first block of the full size: many small ones at the head
    // say nothing of the large ones that follow.
    if (plan_->blocks()[block].range.length < largest_block_bytes_ / 2) return;
    epoch_started_bytes_ = all_bytes;
    epoch_started_ = now;
    return;
  }
  const double seconds = std::chrono::duration<double>(now - epoch_started_).count();
  if (climb_.is_epoch(bytes, seconds)) {
    climb_.epoch(bytes, seconds);
    memory_.header->inflight_bytes = climb_.bytes();
    epoch_started_bytes_ = all_bytes;
    epoch_started_ = now;
  }
}

std::uint64_t BoardClaims::claimed_bytes(std::uint32_t begin, std::uint32_t end,
                                         Runtime::Time now) {
  std::uint64_t bytes = 0;
  for (std::uint32_t block = begin; block < end; ++block) {
    const std::uint16_t state = memory_.states[block];
    if (!is_claimed(state) || is_silent(static_cast<std::uint32_t>(state - kClaimed), now))
      continue;
    bytes += plan_->blocks()[block].range.length;
  }
  return bytes;
}

std::uint64_t BoardClaims::inflight_bytes() const noexcept { return memory_.inflight_bytes(); }

}  // namespace shardahead
