// doorbell: a 32-bit word that is rung when something changed, for whoever waits for a change. It
// may lie in memory that processes share. Knows nothing of what changed. Any thread, any process.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace shardahead {

using DoorbellWord = std::atomic<std::uint32_t>;
static_assert(DoorbellWord::is_always_lock_free && sizeof(DoorbellWord) == 4);

// Read it before looking at what may change, then wait on what was read: no ring is missed.
inline std::uint32_t doorbell_seen(const DoorbellWord& word) noexcept {
  return word.load(std::memory_order_acquire);
}

void ring(DoorbellWord& word) noexcept;
// Wakes one of those that wait, if any does; who reads the word later sees the ring as ever.
void ring_one(DoorbellWord& word) noexcept;
// Wakes no one, for there is nothing to do; but who reads the word sees that something moves.
void ring_unheard(DoorbellWord& word) noexcept;

// Returns at a ring after `seen` was read, after `timeout`, or for no reason.
void wait_for_ring(const DoorbellWord& word, std::uint32_t seen,
                   std::chrono::nanoseconds timeout) noexcept;

}  // namespace shardahead
