#include "simulation_ledger.h"

#include <algorithm>
#include <limits>

#include "board/life.h"

namespace shardahead::testing {
namespace {

// A claim of the living is taken over after 10 s without a change anywhere, seen every 100 ms.
constexpr auto kStallTime = std::chrono::milliseconds(9700);
// Whoever has looked at one that shows no life for that long takes over what it has.
constexpr auto kLooks = kMostSilence + std::chrono::milliseconds(300);
constexpr auto kBetweenLooks = std::chrono::milliseconds(250);
// What a stopped one may cost a consumer.
constexpr auto kMostWait = std::chrono::seconds(12);

}  // namespace

void Ledger::broken(std::uint32_t rank, const std::string& rule) {
  if (closed_) return;
  threads_.stop();
  const double seconds = std::chrono::duration<double>(threads_.now().time_since_epoch()).count();
  violations_.push_back("at " + std::to_string(seconds) + " s, rank " + std::to_string(rank) +
                        ": " + rule);
  trace_.add(threads_.now(), rank, "BROKEN: " + rule);
}

bool Ledger::is_exempt(const Plan& plan, const Block& block) const {
  return all_exempt_ || std::ranges::any_of(exempt_, [&](const FileRange& range) {
           return range.file == block.file && !intersect(range.range, block.range).empty() &&
                  plan.wanted_bytes(block) > 0;
         });
}

void Ledger::join(std::uint32_t rank, Joining joining) {
  Participant& self = ranks_[rank];
  self.joining = std::move(joining);
  self.taken.assign(self.joining.plan->blocks().size(), false);
  self.failed = self.taken;
}

void Ledger::joined(std::uint32_t rank, const Claims& claims) {
  Participant& self = ranks_[rank];
  self.present = self.locks = true;
  trace_.add(threads_.now(), rank, "join", self.joining.on_board ? 1 : 0, claims.wanted().size());
  const auto others = std::ranges::count_if(
      ranks_, [](const Participant& each) { return each.locks && each.joining.on_board; });
  wants_.join(self.joining.plan, self.joining.on_board, others == 1);
  if (!self.joining.on_board) return;
  // An empty board is begun anew.
  if (others == 1) {
    records_.assign(self.joining.plan->blocks().size(), {});
    board_began_ = threads_.now();
    board_read_bytes_ = 0;
  }
  // It may sit where one of the dead was: then what that one had is free.
  for (std::uint32_t block = 0; block < records_.size(); ++block) {
    Record& record = records_[block];
    if (record.claimant == kNoOne || ranks_[record.claimant].present) continue;
    if (!is_claimed(block, claims)) record.claimant = kNoOne;
  }
}

void Ledger::read(std::uint32_t rank, std::uint64_t bytes) {
  const Joining& joining = ranks_[rank].joining;
  if (closed_ || !joining.on_board || joining.rate_limit_bytes_per_s == 0) return;
  board_read_bytes_ += bytes;
  // Of each thread that is at work a block may reach into two more pages, in folios of the cache.
  const std::uint64_t slack_bytes = ranks_.size() * 4 * 2 * PageCache::kFolioBytes;
  std::uint64_t block_bytes = 0;
  for (const Block& block : joining.plan->blocks()) {
    block_bytes = std::max(block_bytes, block.range.length);
  }
  const RateLimit limit(joining.rate_limit_bytes_per_s, block_bytes);
  const double seconds = std::chrono::duration<double>(threads_.now() - board_began_).count();
  const double most_bytes = seconds * static_cast<double>(limit.bytes_per_s()) +
                            static_cast<double>(limit.burst_bytes() + slack_bytes);
  if (static_cast<double>(board_read_bytes_) > most_bytes) {
    broken(rank, "more is read than the rate limit allows");
  }
}

void Ledger::leave(std::uint32_t rank, const Claims& claims) {
  Participant& self = ranks_[rank];
  self.consumes = false;
  if (closed_ || !self.present) return;
  self.present = self.locks = false;
  trace_.add(threads_.now(), rank, "leave");
  const Plan& plan = *self.joining.plan;
  for (const std::uint32_t index : claims.wanted()) {
    if (self.joining.on_board && records_[index].claimant == rank) {
      broken(rank, "leaves with block " + std::to_string(index) + " unsettled");
    }
    if (!self.joining.complete || in_vain_) continue;
    const Block& block = plan.blocks()[index];
    if (!(self.joining.on_board ? records_[index].settled : bool(self.taken[index]))) {
      broken(rank, "done, but block " + std::to_string(index) + " was never settled");
    } else if (self.joining.on_board && !records_[index].failed && !self.failed[index] &&
               !is_exempt(plan, block)) {
      for (const ByteRange& range : plan.wanted(block)) {
        if (cache_.has_come(block.file, range)) continue;
        broken(rank, "done, but not all of block " + std::to_string(index) + " has come");
      }
    }
  }
}

void Ledger::tell_keeping(std::uint32_t rank) {
  trace_.add(threads_.now(), rank, "keeps nothing");
  in_vain_ = true;
  const SimulatedNodeOptions& node = cache_.options();
  if (node.mount == SimulatedMount::keeps && node.memory_bytes == 0) {
    broken(rank, "a mount that keeps pages is said to keep none");
  }
}

void Ledger::die(std::uint32_t rank) {
  ranks_[rank].present = ranks_[rank].consumes = false;
  cancel(rank);
  stop(rank, Time::max());
  trace_.add(threads_.now(), rank, "die");
}

void Ledger::stop(std::uint32_t rank, Time until) {
  Participant& self = ranks_[rank];
  self.stopped_until = until;
  self.seen_by.assign(ranks_.size(), {});
  trace_.add(threads_.now(), rank, "stop");
}

bool Ledger::is_stopped(std::uint32_t rank) const {
  return ranks_[rank].locks && threads_.now() < ranks_[rank].stopped_until;
}

bool Ledger::some_are_stopped() const {
  for (std::uint32_t rank = 0; rank < ranks_.size(); ++rank) {
    if (is_stopped(rank)) return true;
  }
  return false;
}

void Ledger::look_at_stopped(std::uint32_t rank) {
  const auto now = threads_.now();
  for (std::uint32_t one = 0; one < ranks_.size(); ++one) {
    if (!is_stopped(one)) continue;
    Participant::Seen& seen = ranks_[one].seen_by[rank];
    seen.looked_for +=
        std::min<std::chrono::nanoseconds>(now - seen.looked.value_or(now), kBetweenLooks);
    seen.looked = now;
  }
}

void Ledger::wait(std::uint32_t rank, BlockRange blocks, std::chrono::nanoseconds waited) {
  // Who has left the board waits for what it reads by itself.
  if (!ranks_[rank].present || !ranks_[rank].joining.on_board || is_stopped(rank)) return;
  for (std::uint32_t block = blocks.begin;
       block < std::min<std::size_t>(blocks.end, records_.size()); ++block) {
    const Record& record = records_[block];
    if (record.settled) continue;
    if (record.claimant == kNoOne || !is_stopped(record.claimant)) return;
    Participant::Seen& seen = ranks_[record.claimant].seen_by[rank];
    seen.waited_for += std::min<std::chrono::nanoseconds>(waited, kBetweenLooks);
    most_waited_ = std::max(most_waited_, seen.waited_for);
    if (seen.waited_for > kMostWait) {
      broken(rank, "has waited for the stopped rank " + std::to_string(record.claimant));
    }
    return;
  }
}

bool Ledger::is_claimed(std::uint32_t block, const Claims& claims) const {
  const auto standing = claims.standing({block, block + 1});
  return standing && standing->unsettled == 1 && standing->claimed;
}

void Ledger::take(std::uint32_t rank, const Claim& claim, std::uint64_t limit_bytes,
                  const Claims& claims) {
  trace_.add(threads_.now(), rank, "take", claim.block, limit_bytes, claim.done_before ? 1U : 0U);
  if (closed_) return;
  Participant& self = ranks_[rank];
  const std::string block = "block " + std::to_string(claim.block);
  check_window(rank, self.joining.plan->position(self.joining.plan->blocks()[claim.block]),
               limit_bytes);
  if (!self.joining.on_board) {
    if (self.taken[claim.block]) broken(rank, block + " is taken twice");
    self.taken[claim.block] = true;
    return;
  }
  check_order(rank, claim.block, claims);
  Record& record = records_[claim.block];
  if (claim.done_before) {
    if (!record.settled) broken(rank, block + " is said to be done, and is not");
    return;
  }
  if (record.settled) broken(rank, block + " is taken, though settled");
  if (record.claimant != kNoOne) {
    broken(rank, block + " is taken while rank " + std::to_string(record.claimant) + " has it");
  }
  record.claimant = rank;
}

void Ledger::check_order(std::uint32_t rank, std::uint32_t block, const Claims& claims) {
  for (const std::uint32_t earlier : claims.wanted()) {
    if (earlier >= block) return;
    const auto standing = claims.standing({earlier, earlier + 1});
    if (!standing || standing->unsettled == 0 || standing->claimed) continue;
    broken(rank, "block " + std::to_string(block) + " is taken before " + std::to_string(earlier));
    return;
  }
}

// Whoever has moved within this time must be waited for; others may be.
bool Ledger::is_waited_for(std::uint32_t one, std::uint32_t by) const {
  const Participant& other = ranks_[one];
  if (one == by) return other.consumes;
  return other.present && other.consumes && other.joining.on_board && ranks_[by].joining.on_board &&
         threads_.now() - other.moved < ConsumerWatch::kPatience;
}

void Ledger::check_window(std::uint32_t rank, std::uint64_t position, std::uint64_t limit_bytes) {
  if (position >= limit_bytes) broken(rank, "a claim beyond its limit");
  const Joining& joining = ranks_[rank].joining;
  const std::uint64_t window_bytes = joining.window_bytes();
  if (window_bytes == 0) return;
  const auto wanted_between = [&](std::uint64_t from) {
    return wants_.between(*joining.plan, joining.on_board, from, position);
  };
  if (!joining.consumer) {
    if (wanted_between(0) >= window_bytes) broken(rank, "a claim beyond the window");
    return;
  }
  std::uint64_t consumed = std::numeric_limits<std::uint64_t>::max() - window_bytes;
  std::uint64_t needed = 0;
  for (std::uint32_t one = 0; one < ranks_.size(); ++one) {
    needed = std::max(needed, ranks_[one].position.needed_bytes);
    if (is_waited_for(one, rank)) {
      consumed = std::min(consumed, ranks_[one].position.consumed_bytes);
    }
  }
  // Its own end may have been said already: then it waits for no one.
  if (position >= needed && wanted_between(consumed) >= window_bytes) {
    broken(rank, "a claim beyond the window of the slowest consumer");
  }
}

void Ledger::fetch(std::uint32_t rank, const Claim& claim, const std::vector<ByteRange>& ranges) {
  if (closed_) return;
  Participant& self = ranks_[rank];
  const auto wrong = wants_.wrong_with(*self.joining.plan, claim, ranges, self.joining.on_board);
  if (wrong) broken(rank, "block " + std::to_string(claim.block) + " " + *wrong);
  self.asked[claim.block] = ranges;
}

void Ledger::check_fetched(const std::vector<FileRange>& known) {
  if (closed_) return;
  const auto found = wants_.fetched_for_no_one(cache_, known);
  if (!found) return;
  broken(0, "file " + std::to_string(found->file) + " has come from " +
                std::to_string(found->range.offset) + " on, where no one wants it");
}

void Ledger::settle(std::uint32_t rank, const Claim& claim, Outcome outcome, const Claims& claims) {
  trace_.add(threads_.now(), rank, "settle", claim.block, static_cast<std::uint64_t>(outcome));
  if (closed_) return;
  const bool rings = ranks_[rank].joining.on_board && !claim.done_before;
  if (rings) last_ring_ = threads_.now();
  if (claim.done_before && outcome == Outcome::failed) ranks_[rank].failed[claim.block] = true;
  const Plan& plan = *ranks_[rank].joining.plan;
  const Block& block = plan.blocks()[claim.block];
  const std::string name = "block " + std::to_string(claim.block);
  if (outcome == Outcome::done && !is_exempt(plan, block)) {
    const auto asked = ranks_[rank].asked.find(claim.block);
    const auto ranges = asked != ranks_[rank].asked.end() ? asked->second : plan.wanted(block);
    const bool came = std::ranges::all_of(
        ranges, [&](const ByteRange& range) { return cache_.has_come(block.file, range); });
    if (!came) broken(rank, name + " is done, and has not come");
  }
  if (!rings) return;
  Record& record = records_[claim.block];
  if (record.claimant != rank) return;  // it was taken over
  record.claimant = kNoOne;
  record.settled = outcome != Outcome::released;
  record.failed = outcome == Outcome::failed;
  const auto standing = claims.standing({claim.block, claim.block + 1});
  const bool shown = standing && (standing->unsettled == 0) == record.settled &&
                     !standing->claimed && standing->failed == record.failed;
  if (!shown) broken(rank, "what became of " + name + " is not on the board");
}

void Ledger::recover(std::uint32_t rank, bool stalled, const Claims& claims) {
  if (closed_ || !ranks_[rank].joining.on_board) return;
  if (stalled) trace_.add(threads_.now(), rank, "stalled");
  if (stalled && threads_.now() - last_ring_ < kStallTime) {
    broken(rank, "takes over from the living, though something moves");
  }
  look_at_stopped(rank);
  for (const std::uint32_t block : claims.wanted()) {
    Record& record = records_[block];
    if (record.claimant == kNoOne || record.claimant == rank) continue;
    const Participant& other = ranks_[record.claimant];
    const bool dead = !other.locks;
    if (is_claimed(block, claims)) {
      if (dead) broken(rank, "the dead keep block " + std::to_string(block));
      if (is_stopped(record.claimant) && other.seen_by[rank].looked_for > kLooks) {
        broken(rank, "the stopped keep block " + std::to_string(block));
      }
      continue;
    }
    if (!dead && !stalled && threads_.now() - other.lived < kLeastSilence) {
      broken(rank, "takes from the living what they work on");
    }
    record.claimant = kNoOne;
    trace_.add(threads_.now(), rank, dead ? "bury" : "take over", block);
  }
}

void Ledger::consume(std::uint32_t rank, const ConsumerPosition& position) {
  trace_.add(threads_.now(), rank, "consume", position.consumed_bytes, position.needed_bytes,
             position.released_bytes);
  Participant& self = ranks_[rank];
  if (!self.consumes || self.position != position) self.moved = threads_.now();
  self.consumes = self.present;
  self.position = position;
}

void Ledger::end_consumer(std::uint32_t rank) {
  trace_.add(threads_.now(), rank, "end consumer");
  ranks_[rank].consumes = false;
}

void Ledger::drop(std::uint32_t rank, ByteRange positions) {
  trace_.add(threads_.now(), rank, "drop", positions.offset, positions.length);
  for (std::uint32_t one = 0; one < ranks_.size(); ++one) {
    if (is_waited_for(one, rank) && ranks_[one].position.released_bytes < positions.end()) {
      broken(rank, "drops what rank " + std::to_string(one) + " has not released");
    }
  }
}

}  // namespace shardahead::testing
