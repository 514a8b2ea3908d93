// board: the claims of all who work on the same files of this node, in memory that they share.
// They meet by what they load, without being introduced; whoever dies loses its claims. It decides
// who fetches a block, never whether the bytes are right: that is the page cache's.
// Any thread; any number of processes of one user.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "board_file.h"
#include "claims.h"
#include "file_table.h"

namespace shardahead {

struct BoardMemory;  // laid out in board.cpp

// Names what is loaded: user, boot, files (device, inode, size, mtime) and how they are cut.
std::string board_name(const FileTable& files, const Plan& plan);

class BoardClaims final : public Claims {
 public:
  // Joins or makes the board of this plan in `folder`, wanting the blocks `wanted` (ascending).
  // Returns nothing, and the reason in `refusal`, where memory cannot be shared.
  static std::unique_ptr<BoardClaims> join(const std::string& folder, const std::string& name,
                                           std::shared_ptr<const Plan> plan,
                                           std::vector<std::uint32_t> wanted,
                                           BoardRefusal& refusal);
  ~BoardClaims() override;

  [[nodiscard]] const std::vector<std::uint32_t>& wanted() const noexcept override {
    return wanted_;
  }
  // Also gives out, once, what was done before this participant came: that speaks of the past, and
  // whether it is still resident has to be asked.
  std::optional<Claim> take(std::uint64_t limit_bytes) override;
  void settle(const Claim& claim, Outcome outcome) override;
  bool settled(std::uint64_t limit_bytes) override;
  void recover(bool stalled) override;
  [[nodiscard]] SharedFigures shared() const override;
  DoorbellWord& doorbell() noexcept override;

 private:
  BoardClaims(BoardFile file, std::shared_ptr<const Plan> plan, std::vector<std::uint32_t> wanted);

  // Moves first_open_ past what is settled, and counts what others have settled.
  void advance();

  BoardFile file_;
  BoardMemory* memory_;
  const std::shared_ptr<const Plan> plan_;
  const std::vector<std::uint32_t> wanted_;
  mutable std::mutex mutex_;    // guards everything below
  std::size_t first_open_ = 0;  // into wanted_: all before it are settled
  std::vector<bool> recheck_;   // into wanted_: done before this participant came, not asked yet
  std::vector<bool> own_;       // into wanted_: taken by this participant, so counted by it
  SharedFigures shared_;
};

}  // namespace shardahead
