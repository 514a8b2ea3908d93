// board_memory: how a board lies in shared memory: a header, then which grains are wanted, then of
// every block what of it was resident, its state, and how it is wanted. Any process of the same
// user may write to any word at any time, so nothing here is relied upon: sizes come from the plan,
// and a word without meaning counts as free. Any thread.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/doorbell.h"
#include "board/board_file.h"
#include "board/claims.h"
#include "board/grains.h"
#include "board/life.h"
#include "board/resident_notes.h"
#include "plan/rate_limit.h"

namespace shardahead {

inline constexpr std::uint64_t kBoardMagic = 0x6461656861726873;  // "shrahead", little-endian
inline constexpr std::uint32_t kBoardVersion = 9;

using BlockState = std::atomic<std::uint16_t>;
using BlockWants = std::atomic<std::uint8_t>;
using GrainsWord = std::atomic<std::uint64_t>;  // a bit for each grain, the lowest first
static_assert(BlockState::is_always_lock_free && BlockWants::is_always_lock_free &&
              GrainsWord::is_always_lock_free);

// What a block's state says: one of these, or claimed by slot state - kClaimed.
inline constexpr std::uint16_t kFree =
    0;  // zeroed memory is a board on which nothing has been done
inline constexpr std::uint16_t kDone = 1;
inline constexpr std::uint16_t kFailed = 2;
inline constexpr std::uint16_t kClaimed = 16;

constexpr bool is_settled(std::uint16_t state) { return state == kDone || state == kFailed; }

constexpr bool is_claimed(std::uint16_t state) {
  return state >= kClaimed && state < kClaimed + kBoardSlots;
}

// Participants of this version write no other states.
constexpr bool has_meaning(std::uint16_t state) {
  return state == kFree || is_settled(state) || is_claimed(state);
}

constexpr std::uint16_t claimed_by(std::uint32_t slot) {
  return static_cast<std::uint16_t>(kClaimed + slot);
}

constexpr std::uint16_t state_after(Outcome outcome) {
  switch (outcome) {
    case Outcome::done: return kDone;
    case Outcome::failed: return kFailed;
    case Outcome::released: break;
  }
  return kFree;
}

// How much of a block is wanted: nothing, parts of it by one participant, the marked grains by
// several, all of it. Whatever else stands there means all.
inline constexpr std::uint8_t kNotWanted = 0;
inline constexpr std::uint8_t kWantedPartly = 1;
inline constexpr std::uint8_t kWantedInGrains = 2;
inline constexpr std::uint8_t kWantedWhole = 3;

// One participant's consumer. Each figure is right by itself; together they may be of two moments.
struct alignas(32) ConsumerSlot {
  std::atomic<std::uint64_t> consumed_bytes;
  std::atomic<std::uint64_t> needed_bytes;
  std::atomic<std::uint64_t> released_bytes;
  std::atomic<std::uint32_t> active;
  std::atomic<std::uint32_t> opened;  // all its files, for good; stays when it has ended
};

struct BoardHeader {  // NOLINT(clang-analyzer-optin.performance.Padding): no false sharing
  std::atomic<std::uint64_t> magic;
  std::atomic<std::uint32_t> version;
  std::atomic<std::uint32_t> block_count;
  std::atomic<std::uint64_t> inflight_bytes;       // what may be in flight on this node
  std::atomic<std::uint64_t> read_bytes;           // brought in so far, by anyone
  std::atomic<std::uint32_t> watcher;              // slot + 1 of who watches the throughput
  std::atomic<std::uint32_t> consumer_slots;       // all slots with a consumer are below this
  std::atomic<std::uint64_t> dropped_bytes;        // everything before has been dropped
  std::atomic<std::uint32_t> keeping;              // of a mount that keeps nothing; a Keeping
  std::atomic<std::uint64_t> set_inflight_bytes;   // by a participant, for all; 0: by none
  std::atomic<std::uint32_t> block_microseconds;   // that a block takes at present; 0: not known
  std::atomic<std::uint64_t> account_bytes_per_s;  // the rate limit of that account; 0: none yet
  std::atomic<RateLimit::PaidUntil> rate_account;  // of all that have this limit
  std::atomic<std::uint32_t> wants_changes;        // how often someone came who wants more
  std::atomic<std::uint32_t> misled;               // how often someone said that it was
  std::atomic<std::uint32_t> limit;                // that the watcher has found; a Limit
  std::array<ConsumerSlot, kBoardSlots> consumers;
  // Of each participant: changes whenever it does anything here.
  std::array<std::atomic<std::uint32_t>, kBoardSlots> life;
  alignas(64) DoorbellWord doorbell;
  alignas(64) std::byte end;
};

// How large the parts of a board are; the same for all who have the same plan.
struct BoardShape {
  explicit BoardShape(const Plan& plan) : BoardShape(plan, Grains(plan)) {}
  BoardShape(const Plan& plan, const Grains& grains)
      : blocks(plan.blocks().size()),
        words(static_cast<std::size_t>(align_up(grains.count(), 64) / 64)) {}

  [[nodiscard]] std::size_t size_bytes() const;

  std::size_t blocks;
  std::size_t words;  // of grains
};

// The parts of one board, found once: what stands in the memory later does not move them.
struct BoardMemory {
  BoardMemory(std::byte* memory, const BoardShape& shape)
      : header(reinterpret_cast<BoardHeader*>(memory)),
        grains(reinterpret_cast<GrainsWord*>(header + 1), shape.words),
        notes(reinterpret_cast<ResidentNote*>(grains.data() + shape.words), shape.blocks),
        states(reinterpret_cast<BlockState*>(notes.data() + shape.blocks), shape.blocks),
        wants(reinterpret_cast<BlockWants*>(states.data() + shape.blocks), shape.blocks) {}

  // Of zeroed memory.
  void begin() const {
    header->version = kBoardVersion;
    header->block_count = static_cast<std::uint32_t>(states.size());
    header->magic = kBoardMagic;
  }
  [[nodiscard]] bool is_board() const {
    return header->magic == kBoardMagic && header->version == kBoardVersion &&
           header->block_count == states.size();
  }
  [[nodiscard]] std::span<ConsumerSlot> used_consumers() const {
    return std::span(header->consumers).first(std::min(header->consumer_slots.load(), kBoardSlots));
  }
  // At least 1: with 0 no one would ever claim a block.
  [[nodiscard]] std::uint64_t inflight_bytes() const {
    const std::uint64_t set_bytes = header->set_inflight_bytes;
    return std::max<std::uint64_t>(set_bytes != 0 ? set_bytes : header->inflight_bytes.load(), 1);
  }
  // Of several values the least holds, whoever comes first: it is there to spare the storage.
  void set_inflight_bytes(std::uint64_t bytes) const {
    std::uint64_t set_bytes = header->set_inflight_bytes;
    while ((set_bytes == 0 || bytes < set_bytes) &&
           !header->set_inflight_bytes.compare_exchange_weak(set_bytes, bytes)) {
    }
  }
  [[nodiscard]] std::chrono::microseconds block_time() const {
    return std::min<std::chrono::microseconds>(
        std::chrono::microseconds(header->block_microseconds.load()), kMostBlockTime);
  }

  BoardHeader* header;
  std::span<GrainsWord> grains;
  std::span<ResidentNote> notes;
  std::span<BlockState> states;
  std::span<BlockWants> wants;
};

inline std::size_t BoardShape::size_bytes() const {
  return sizeof(BoardHeader) + words * sizeof(GrainsWord) +
         blocks * (sizeof(ResidentNote) + sizeof(BlockState) + sizeof(BlockWants));
}

}  // namespace shardahead
