// board: the claims of all who work on the same files of this node, in memory that they share.
// They meet by what they load, without being introduced; whoever dies loses its claims. It decides
// who fetches a block, never whether the bytes are right: that is the page cache's.
// Any thread; any number of processes of one user.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/runtime.h"
#include "base/thread_safety.h"
#include "board/board_file.h"
#include "board/board_memory.h"
#include "board/claims.h"
#include "board/others.h"
#include "board/throughput.h"
#include "board/union_wants.h"
#include "board/wanted_blocks.h"
#include "plan/window.h"

namespace shardahead {

struct BoardOptions {
  // Fixes what may be in flight, for the whole node, if it is not 0.
  std::uint64_t set_inflight_bytes = 0;
  // What this participant wants may be wrong: until the node has brought in kDoubtedBytes more it
  // takes nothing beyond kDoubtedInflightBytes, for whoever finds out has to wait for all of it,
  // and nothing while others fetch what lies before it: the first of them finds out for all.
  bool doubted = false;
};

inline constexpr std::uint64_t kDoubtedBytes = 64 * kMiB;
inline constexpr std::uint64_t kDoubtedInflightBytes = 8 * kMiB;

class BoardClaims final : public Claims {
 public:
  // Joins or makes the board of this plan in `folder`, wanting the blocks `wanted` (ascending).
  // Returns nothing, and the reason in `refusal`, where memory cannot be shared.
  static std::unique_ptr<BoardClaims> join(const std::string& folder, const std::string& name,
                                           std::shared_ptr<const Plan> plan,
                                           std::vector<std::uint32_t> wanted, BoardRefusal& refusal,
                                           const BoardOptions& options = {},
                                           Runtime& runtime = system_runtime());
  BoardClaims(const BoardClaims&) = delete;
  BoardClaims& operator=(const BoardClaims&) = delete;
  ~BoardClaims() override;

  [[nodiscard]] const std::vector<std::uint32_t>& wanted() const noexcept override {
    return wanted_;
  }
  // Also gives out, once each, what was done or begun before this participant came, as soon as it
  // is settled: it may have been evicted since, and may have been fetched only in part, as far as
  // others wanted it. So its taker has to see whether all of it is resident.
  std::optional<Claim> take(std::uint64_t limit_bytes) override;
  // What others want of it, too; of what was done or begun before, only what this one wants: the
  // others ask by themselves.
  [[nodiscard]] std::vector<ByteRange> ranges(const Claim& claim) const override;
  void note_resident(std::uint32_t block, std::uint64_t bytes) noexcept override {
    ResidentNotes(memory_.notes).note(block, bytes);
  }
  [[nodiscard]] std::optional<std::uint64_t> noted_resident(
      std::uint32_t block) const noexcept override {
    return ResidentNotes(memory_.notes).noted(block);
  }
  void settle(const Claim& claim, Outcome outcome, std::uint64_t read_bytes) override;
  bool settled(std::uint64_t limit_bytes) override;
  void recover(bool stalled) override;
  [[nodiscard]] std::optional<Standing> standing(BlockRange blocks) const override;
  [[nodiscard]] SharedFigures shared() const override;
  [[nodiscard]] std::uint64_t inflight_bytes() const noexcept override;
  [[nodiscard]] Limit limit() const noexcept override;
  [[nodiscard]] std::uint64_t window_end(std::uint64_t window_bytes,
                                         const ConsumerPosition& consumer) const override;
  [[nodiscard]] std::uint64_t behind(std::uint64_t position,
                                     std::uint64_t wanted_bytes) const override;
  std::atomic<RateLimit::PaidUntil>* rate_account(std::uint64_t bytes_per_s) noexcept override;
  void report_consumer(const ConsumerPosition& position) override;
  bool end_consumer() override;
  std::optional<ConsumerPosition> slowest_consumer(
      std::chrono::steady_clock::time_point now) override;
  std::optional<ByteRange> take_dropping(std::uint64_t until_bytes) override;
  void tell_keeping(Keeping found) override;
  [[nodiscard]] Keeping told_keeping() const noexcept override;
  void tell_misled() override;
  [[nodiscard]] bool told_misled() const noexcept override;
  void tell_opened() override;
  std::optional<Meeting> meeting() override;
  DoorbellWord& doorbell() noexcept override;

 private:
  BoardClaims(BoardFile file, std::shared_ptr<const Plan> plan, std::vector<std::uint32_t> wanted,
              Grains grains, const BoardOptions& options, Runtime& runtime);

  // What is to be fetched of blocks that are claimed by anyone who shows life, from block `begin`
  // up to `end`.
  [[nodiscard]] std::uint64_t claimed_bytes(const WantedSums& sums, std::uint32_t begin,
                                            std::uint32_t end, Runtime::Time now) REQUIRES(mutex_);
  // Whether anything that is wanted there has been claimed by nobody.
  [[nodiscard]] bool is_left_free(const WantedSums& sums, std::uint32_t begin,
                                  std::uint32_t end) const noexcept REQUIRES(mutex_);
  // Says that this participant is at work; the others would take it for stopped.
  void show_life() const noexcept;
  [[nodiscard]] bool is_silent(std::uint32_t slot, Runtime::Time now) REQUIRES(mutex_);
  // A block has been settled that was taken at `taken`.
  void note_pace(Runtime::Time taken);
  // One participant watches the throughput for all; when it is gone, the next to settle does.
  void watch_throughput(std::uint32_t block, std::uint64_t read_bytes);
  // Takes the consumers of the dead off the board.
  void bury_consumers() REQUIRES(mutex_);
  // A claim has been settled.
  void put_down(std::uint32_t block);

  BoardFile file_;
  const BoardMemory memory_;
  const std::shared_ptr<const Plan> plan_;
  const std::vector<std::uint32_t> wanted_;
  Runtime& runtime_;
  const std::uint64_t doubted_until_bytes_;  // of what the node has brought in
  const std::uint32_t misled_before_;        // what the board said when this participant came
  // One for all that follows: a take() looks at the blocks and at the others, and locks once.
  mutable Mutex mutex_;
  mutable UnionWants wants_ GUARDED_BY(mutex_);
  WantedBlocks blocks_ GUARDED_BY(mutex_);
  Others others_ GUARDED_BY(mutex_);
  Throughput throughput_ GUARDED_BY(mutex_);
};

}  // namespace shardahead
