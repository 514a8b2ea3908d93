// resident_notes: what of each block was resident before anyone read near it, a word a block, which
// many may write at once: the first is right. Decides nothing about what was read. Any thread; any
// number of processes that share the words.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>

namespace shardahead {

using ResidentNote = std::atomic<std::uint32_t>;  // bytes + 1; 0: not noted
static_assert(ResidentNote::is_always_lock_free);

class ResidentNotes {
 public:
  explicit ResidentNotes(std::span<ResidentNote> notes) noexcept : notes_(notes) {}

  // No block is so long that its bytes do not fit.
  void note(std::uint32_t block, std::uint64_t bytes) const noexcept {
    std::uint32_t none = 0;
    notes_[block].compare_exchange_strong(none, static_cast<std::uint32_t>(bytes) + 1);
  }
  [[nodiscard]] std::optional<std::uint64_t> noted(std::uint32_t block) const noexcept {
    const std::uint32_t note = notes_[block];
    return note == 0 ? std::nullopt : std::optional<std::uint64_t>(note - 1);
  }

 private:
  std::span<ResidentNote> notes_;
};

}  // namespace shardahead
