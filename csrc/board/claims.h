// claims: who takes which block next, and what became of it. The engine's workers ask; it decides
// nothing about bytes. Two kinds: StaticClaims, a fixed share for ranks that do not talk, and
// BoardClaims (board.h), for all who work on the same files of this node. Methods are for any
// thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/doorbell.h"
#include "base/limit.h"
#include "base/thread_safety.h"
#include "board/resident_notes.h"
#include "node/keeping.h"
#include "plan/plan.h"
#include "plan/rate_limit.h"
#include "plan/wanted_sums.h"
#include "plan/window.h"

namespace shardahead {

enum class Outcome { done, failed, released };  // released: given back, someone may take it

struct Claim {
  std::uint32_t block = 0;
  bool done_before = false;  // settled already; only whether it is still resident is open
  std::chrono::steady_clock::time_point taken{std::chrono::seconds(0)};  // by its taker's clock
};

// How it stands with some blocks, for one who waits for them.
struct Standing {
  std::uint32_t unsettled = 0;        // how many
  std::uint32_t first_unsettled = 0;  // which is the first of them
  bool claimed = false;               // someone is at work on that one
  bool failed = false;                // some byte could not be read
  // Since when the first has been seen with whoever is at work on it, where that was looked at.
  std::optional<std::chrono::steady_clock::time_point> held_since = std::nullopt;
  friend bool operator==(const Standing&, const Standing&) = default;
};

// Participants of this node with a consumer that read files whose pages go at every open(): those
// that have opened all of theirs, and those that have not yet.
struct Meeting {
  std::uint32_t opened = 0;
  std::uint32_t opening = 0;
};

// What others have done of the blocks that this participant wants.
struct SharedFigures {
  std::uint64_t done_bytes = 0;
  std::uint64_t failed_bytes = 0;
  // Brought in by all of this node, this participant too, since it came; 0 where no one counts it.
  std::uint64_t node_read_bytes = 0;
};

class Claims {
 public:
  Claims() = default;
  Claims(const Claims&) = delete;
  Claims& operator=(const Claims&) = delete;
  virtual ~Claims() = default;

  // The blocks that this participant wants, ascending.
  [[nodiscard]] virtual const std::vector<std::uint32_t>& wanted() const noexcept = 0;
  // The first wanted block that no one has taken and that begins before `limit_bytes` of the plan.
  virtual std::optional<Claim> take(std::uint64_t limit_bytes) = 0;
  // What of the block its taker is to fetch, in order: what all of this node want, where others
  // may ask it to.
  [[nodiscard]] virtual std::vector<ByteRange> ranges(const Claim& claim) const = 0;
  // What of a block was resident before anyone of this node read of its file near it, in bytes; who
  // is about to read says it, and the first to say it is right. The kernel reads beyond what it is
  // asked for, and what came so looks as if it had been there.
  virtual void note_resident(std::uint32_t block, std::uint64_t bytes) noexcept = 0;
  // Nothing where it was not noted.
  [[nodiscard]] virtual std::optional<std::uint64_t> noted_resident(
      std::uint32_t block) const noexcept = 0;
  // `read_bytes` are those that were not resident before.
  virtual void settle(const Claim& claim, Outcome outcome, std::uint64_t read_bytes) = 0;
  // Whether all wanted blocks that begin before `limit_bytes` are settled, by whomever.
  virtual bool settled(std::uint64_t limit_bytes) = 0;
  // Gives back what the dead had taken, and whoever shows no life; where nothing has changed for
  // long (`stalled`) also what the living others have. For a worker that finds nothing to take.
  virtual void recover(bool /*stalled*/) {}
  // Nothing where it is not known what the others do, or where no one wants one of the blocks.
  [[nodiscard]] virtual std::optional<Standing> standing(BlockRange /*blocks*/) const {
    return std::nullopt;
  }
  [[nodiscard]] virtual SharedFigures shared() const { return {}; }
  // How many bytes this node may have in flight at present; 0 where no one counts them.
  [[nodiscard]] virtual std::uint64_t inflight_bytes() const noexcept { return 0; }
  // What limits its throughput, as far as more and less in flight were compared.
  [[nodiscard]] virtual Limit limit() const noexcept { return Limit::unknown; }

  // As those of wanted_sums.h, of what all of this node want as far as that is known: where a
  // window ends, and from where on so many wanted bytes lie before `position`.
  [[nodiscard]] virtual std::uint64_t window_end(std::uint64_t window_bytes,
                                                 const ConsumerPosition& consumer) const = 0;
  [[nodiscard]] virtual std::uint64_t behind(std::uint64_t position,
                                             std::uint64_t wanted_bytes) const = 0;

  // Until when all of this node that have this rate limit have paid for what they read
  // (rate_limit.h); nothing where each of them counts by itself. As long as these claims are there.
  virtual std::atomic<RateLimit::PaidUntil>* rate_account(std::uint64_t) noexcept {
    return nullptr;
  }

  // Where this participant's consumer is. From the first report on it counts as a consumer of this
  // node, until it ends.
  virtual void report_consumer(const ConsumerPosition& /*position*/) {}
  // Whether no consumer of this node is left.
  virtual bool end_consumer() { return true; }
  // The least of the positions of all consumers of this node that move. Nothing where it is not
  // known what the others do.
  virtual std::optional<ConsumerPosition> slowest_consumer(std::chrono::steady_clock::time_point) {
    return std::nullopt;
  }
  // What is to be dropped now, by this participant alone, when all before `until_bytes` of the
  // checkpoint may be. Nothing where that is not worth a call yet.
  virtual std::optional<ByteRange> take_dropping(std::uint64_t /*until_bytes*/) {
    return std::nullopt;
  }
  // A mount that was found to keep nothing, for the others: once they read in some other way, what
  // they bring in makes it look as if it did.
  virtual void tell_keeping(Keeping /*found*/) {}
  // What others have found; unknown where they found nothing of the kind.
  [[nodiscard]] virtual Keeping told_keeping() const noexcept { return Keeping::unknown; }
  // What this participant went by, a profile say, was wrong: for others of this node that go by the
  // like, and have not seen yet whether it is right.
  virtual void tell_misled() {}
  // Whether another has said so since this one came.
  [[nodiscard]] virtual bool told_misled() const noexcept { return false; }
  // This participant opens none of the files any more.
  virtual void tell_opened() {}
  // Nothing where it is not known what the others do.
  virtual std::optional<Meeting> meeting() { return std::nullopt; }
  // Rung at every change that may let a take(), settled() or meeting() answer otherwise.
  virtual DoorbellWord& doorbell() noexcept = 0;
};

// Blocks in ascending order, for this process alone.
class StaticClaims final : public Claims {
 public:
  StaticClaims(std::shared_ptr<const Plan> plan, std::vector<std::uint32_t> share);

  [[nodiscard]] const std::vector<std::uint32_t>& wanted() const noexcept override {
    return share_;
  }
  std::optional<Claim> take(std::uint64_t limit_bytes) override;
  [[nodiscard]] std::vector<ByteRange> ranges(const Claim& claim) const override;
  void note_resident(std::uint32_t block, std::uint64_t bytes) noexcept override {
    ResidentNotes(notes_).note(block, bytes);
  }
  [[nodiscard]] std::optional<std::uint64_t> noted_resident(
      std::uint32_t block) const noexcept override {
    return ResidentNotes(notes_).noted(block);
  }
  void settle(const Claim& claim, Outcome outcome, std::uint64_t read_bytes) override;
  bool settled(std::uint64_t limit_bytes) override;
  [[nodiscard]] std::uint64_t window_end(std::uint64_t window_bytes,
                                         const ConsumerPosition& consumer) const override {
    return sums_.window_end(window_bytes, consumer);
  }
  [[nodiscard]] std::uint64_t behind(std::uint64_t position,
                                     std::uint64_t wanted_bytes) const override {
    return sums_.behind(position, wanted_bytes);
  }
  DoorbellWord& doorbell() noexcept override { return doorbell_; }

 private:
  const std::shared_ptr<const Plan> plan_;
  const std::vector<std::uint32_t> share_;
  const WantedSums sums_;                    // of all that this participant wants, its share or not
  mutable std::vector<ResidentNote> notes_;  // words without a lock
  Mutex mutex_;
  std::size_t next_ GUARDED_BY(mutex_) = 0;
  DoorbellWord doorbell_{0};
};

}  // namespace shardahead
