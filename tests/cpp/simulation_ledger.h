// simulation_ledger: what the participants of a simulated node were seen to do, and the rules that
// this is held against. It does not look into the board: it stands between engines and claims. What
// breaks a rule is noted, never thrown. One thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "board/claims.h"
#include "simulated_node.h"
#include "simulation_trace.h"
#include "wants_ledger.h"

namespace shardahead::testing {

class Ledger {
 public:
  using Time = Runtime::Time;

  Ledger(VirtualThreads& threads, PageCache& cache, Trace& trace, std::uint32_t ranks)
      : threads_(threads), cache_(cache), trace_(trace), ranks_(ranks) {}

  struct Joining {
    std::shared_ptr<const Plan> plan;
    bool on_board = false;
    bool consumer = false;
    bool complete = true;  // all that is wanted has to come, unless it is cancelled
    std::function<std::uint64_t()> window_bytes;  // in force; 0 is no limit
    std::uint64_t rate_limit_bytes_per_s = 0;     // of all on the board
  };

  void broken(std::uint32_t rank, const std::string& rule);
  [[nodiscard]] const std::vector<std::string>& violations() const noexcept { return violations_; }
  // It is not known of the bytes of these blocks whether they are there: the kernel lies.
  void exempt(std::uint32_t file, ByteRange range) { exempt_.push_back({file, range}); }
  void exempt_all() { all_exempt_ = true; }
  [[nodiscard]] bool is_exempt(const Plan& plan, const Block& block) const;

  // Before it has claims, and after.
  void join(std::uint32_t rank, Joining joining);
  void joined(std::uint32_t rank, const Claims& claims);
  // Its claims are gone. Unless it was cancelled, all that it wanted must have come.
  void leave(std::uint32_t rank, const Claims& claims);
  void cancel(std::uint32_t rank) { ranks_[rank].joining.complete = false; }
  // Its locks may stay for a while: then it looks stopped.
  void die(std::uint32_t rank);
  void drop_locks(std::uint32_t rank) { ranks_[rank].locks = false; }
  void stop(std::uint32_t rank, Time until);
  [[nodiscard]] bool some_are_stopped() const;
  // It does something on the board.
  void live(std::uint32_t rank) { ranks_[rank].lived = threads_.now(); }
  // Its consumer has waited so long for these blocks since it was last seen to.
  void wait(std::uint32_t rank, BlockRange blocks, std::chrono::nanoseconds waited);
  // The most that one stopped rank has cost a consumer.
  [[nodiscard]] std::chrono::nanoseconds most_waited() const noexcept { return most_waited_; }
  [[nodiscard]] bool is_on_board(std::uint32_t rank) const {
    return ranks_[rank].present && ranks_[rank].joining.on_board;
  }
  // It has found that the mount keeps nothing, and tells all: they end, whatever is left. A mount
  // that does may look like that where memory is so short that a page goes as soon as it comes.
  void tell_keeping(std::uint32_t rank);
  [[nodiscard]] bool is_in_vain() const noexcept { return in_vain_; }
  // At the end: nothing has come that no one wanted; `known` was there from the start.
  void check_fetched(const std::vector<FileRange>& known);
  // From now on nothing is judged.
  void close() { closed_ = true; }

  void take(std::uint32_t rank, const Claim& claim, std::uint64_t limit_bytes,
            const Claims& claims);
  // It is told to fetch these of the block.
  void fetch(std::uint32_t rank, const Claim& claim, const std::vector<ByteRange>& ranges);
  void settle(std::uint32_t rank, const Claim& claim, Outcome outcome, const Claims& claims);
  // Of a block that it has settled: no more on the board than the rate limit and a burst.
  void read(std::uint32_t rank, std::uint64_t bytes);
  void recover(std::uint32_t rank, bool stalled, const Claims& claims);
  void consume(std::uint32_t rank, const ConsumerPosition& position);
  void end_consumer(std::uint32_t rank);
  void drop(std::uint32_t rank, ByteRange positions);

 private:
  static constexpr std::uint32_t kNoOne = ~std::uint32_t{0};

  struct Record {
    std::uint32_t claimant = kNoOne;
    bool settled = false;
    bool failed = false;
  };
  struct Participant {
    Joining joining;
    bool present = false;
    bool consumes = false;
    ConsumerPosition position;
    Time moved;
    bool locks = false;  // it is on the board, or holds the locks of who was
    Time lived;
    Time stopped_until;
    // Since it stopped, by rank: how long that one has looked at it, and has waited for it.
    struct Seen {
      std::optional<Time> looked;
      std::chrono::nanoseconds looked_for{0};
      std::chrono::nanoseconds waited_for{0};
    };
    std::vector<Seen> seen_by;
    std::map<std::uint32_t, std::vector<ByteRange>> asked;  // by block: what it is to fetch
    std::vector<bool> taken;                                // without a board
    std::vector<bool> failed;  // its own part of what was done before: on no board, in its report
  };

  [[nodiscard]] bool is_waited_for(std::uint32_t one, std::uint32_t by) const;
  void check_window(std::uint32_t rank, std::uint64_t position, std::uint64_t limit_bytes);
  void check_order(std::uint32_t rank, std::uint32_t block, const Claims& claims);
  [[nodiscard]] bool is_claimed(std::uint32_t block, const Claims& claims) const;
  [[nodiscard]] bool is_stopped(std::uint32_t rank) const;
  void look_at_stopped(std::uint32_t rank);

  VirtualThreads& threads_;
  PageCache& cache_;
  Trace& trace_;
  std::vector<Participant> ranks_;
  std::vector<Record> records_;  // of the board, by block
  WantsLedger wants_;
  std::vector<FileRange> exempt_;
  bool all_exempt_ = false;
  bool in_vain_ = false;
  bool closed_ = false;
  Time last_ring_;
  Time board_began_;
  std::uint64_t board_read_bytes_ = 0;
  std::chrono::nanoseconds most_waited_{0};
  std::vector<std::string> violations_;
};

}  // namespace shardahead::testing
