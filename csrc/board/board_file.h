// board_file: the file in shared memory under a board: opened or made, checked, locked and mapped.
// Knows nothing of blocks. Its locks belong to the open file description, so that the kernel drops
// them when the process dies. Construction is for one thread; the checks are for any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "board/board_descriptor.h"

namespace shardahead {

inline constexpr std::uint32_t kBoardSlots = 512;

// Why there is no board: never an exception, for the prefetch goes on without one.
struct BoardRefusal {
  std::string reason;
};

class BoardFile {
 public:
  // Opens or makes `folder`/`name` with `size_bytes`, takes the first free slot, and maps it. When
  // no other participant holds a slot the contents are zeroed first: they are of the dead, and
  // `begin`, if any, is called for the memory before anyone else can join. On failure `refusal`
  // says why.
  using Begin = std::function<void(std::byte* memory)>;
  static std::optional<BoardFile> join(const std::string& folder, const std::string& name,
                                       std::size_t size_bytes, BoardRefusal& refusal,
                                       const Begin& begin = {});
  // Removes the boards of this user in `folder` whose name begins with `prefix` and in which no one
  // is left: those who were killed could not.
  static void sweep(const std::string& folder, const std::string& prefix) noexcept;

  BoardFile(BoardFile&& other) noexcept;
  BoardFile& operator=(BoardFile&&) = delete;
  BoardFile(const BoardFile&) = delete;
  BoardFile& operator=(const BoardFile&) = delete;
  // Gives the slot back, and removes the file if no one else holds one. In a forked child it
  // leaves both alone.
  ~BoardFile();

  [[nodiscard]] std::byte* memory() const noexcept { return memory_; }
  [[nodiscard]] std::uint32_t slot() const noexcept { return slot_; }
  // The first to come since the board was empty: its contents are all zero.
  [[nodiscard]] bool first() const noexcept { return first_; }
  // Else this is a forked child, which has neither memory nor slot.
  [[nodiscard]] bool is_here() const noexcept { return descriptor_.is_here(); }
  // Whether the participant in that slot is gone. False for one's own.
  [[nodiscard]] bool is_dead(std::uint32_t slot) const noexcept;

 private:
  BoardFile(std::string path, BoardDescriptor descriptor) noexcept;
  bool set_up(std::size_t size_bytes, BoardRefusal& refusal);
  void leave() noexcept;

  std::string path_;
  BoardDescriptor descriptor_;
  std::byte* memory_ = nullptr;
  std::size_t size_bytes_ = 0;
  std::uint32_t slot_ = 0;
  bool first_ = false;
};

}  // namespace shardahead
