#include "board/board.h"

#include <algorithm>
#include <array>
#include <utility>

#include "board/board_name.h"

namespace shardahead {
namespace {

// The least that is worth a call: the kernel takes a while for each, however little it drops.
constexpr std::uint64_t kDroppedAtOnceBytes = 16 * kMiB;
// A block of the living is taken over when it has been held for so many times what one takes.
constexpr int kLongHeldBlocks = 3;

std::uint64_t largest_block_bytes(const Plan& plan, const std::vector<std::uint32_t>& wanted) {
  std::uint64_t bytes = kMinBlockBytes;
  for (const std::uint32_t block : wanted) {
    bytes = std::max(bytes, plan.blocks()[block].range.length);
  }
  return bytes;
}

}  // namespace

std::unique_ptr<BoardClaims> BoardClaims::join(const std::string& folder, const std::string& name,
                                               std::shared_ptr<const Plan> plan,
                                               std::vector<std::uint32_t> wanted,
                                               BoardRefusal& refusal, const BoardOptions& options,
                                               Runtime& runtime) {
  Grains grains(*plan);
  const BoardShape shape(*plan, grains);
  auto file = BoardFile::join(folder, name, shape.size_bytes(), refusal,
                              [&](std::byte* zeroed) { BoardMemory(zeroed, shape).begin(); });
  if (!file) return nullptr;
  const BoardMemory memory(file->memory(), shape);
  if (file->first()) BoardFile::sweep(folder, board_prefix());
  if (!memory.is_board()) {
    refusal.reason = folder + "/" + name + ": not a board of this version";
    return nullptr;
  }
  return std::unique_ptr<BoardClaims>(new BoardClaims(
      std::move(*file), std::move(plan), std::move(wanted), std::move(grains), options, runtime));
}

BoardClaims::BoardClaims(BoardFile file, std::shared_ptr<const Plan> plan,
                         std::vector<std::uint32_t> wanted, Grains grains,
                         const BoardOptions& options, Runtime& runtime)
    : file_(std::move(file)),
      memory_(file_.memory(), BoardShape(*plan, grains)),
      plan_(std::move(plan)),
      wanted_(std::move(wanted)),
      runtime_(runtime),
      doubted_until_bytes_(options.doubted ? memory_.header->read_bytes + kDoubtedBytes : 0),
      misled_before_(memory_.header->misled),
      wants_(*plan_, memory_, std::move(grains)),
      blocks_(*plan_, wanted_, memory_.header->read_bytes),
      others_(file_.slot(), wanted_.size()),
      throughput_(largest_block_bytes(*plan_, wanted_), options.set_inflight_bytes) {
  if (file_.first()) memory_.header->inflight_bytes = throughput_.inflight_bytes();
  if (options.set_inflight_bytes != 0) memory_.set_inflight_bytes(options.set_inflight_bytes);
  show_life();
  // Who had this slot before is dead: its claims are nobody's, and it consumes nothing.
  memory_.header->consumers[file_.slot()].active = 0;
  memory_.header->consumers[file_.slot()].opened = 0;
  for (BlockState& state : memory_.states) {
    std::uint16_t seen = state;
    if (seen == claimed_by(file_.slot()) || !has_meaning(seen)) {
      state.compare_exchange_strong(seen, kFree);
    }
  }
  wants_.add(wanted_);
  for (std::size_t i = 0; i < wanted_.size(); ++i) {
    if (memory_.states[wanted_[i]] != kFree) blocks_.recheck(i);
  }
}

BoardClaims::~BoardClaims() {
  if (!file_.is_here()) return;
  BoardClaims::end_consumer();
  std::uint32_t mine = file_.slot() + 1;
  memory_.header->watcher.compare_exchange_strong(mine, 0);
}

std::optional<Claim> BoardClaims::take(std::uint64_t limit_bytes) {
  const MutexLock lock(mutex_);
  show_life();
  blocks_.advance(memory_.states);
  const auto now = runtime_.now();
  const auto mine = claimed_by(file_.slot());
  const bool doubted = memory_.header->read_bytes < doubted_until_bytes_;
  const std::uint64_t most_bytes =
      std::min(memory_.inflight_bytes(), doubted ? kDoubtedInflightBytes : kNoEnd);
  const WantedSums& sums = wants_.sums();
  std::uint64_t in_flight_bytes = 0;
  bool others_first = false;
  const std::size_t first_open = blocks_.first_open();
  for (std::size_t i = first_open; i < wanted_.size(); ++i) {
    const std::uint32_t block = wanted_[i];
    std::uint32_t between = i == first_open ? block : wanted_[i - 1] + 1;
    if (doubted && i == first_open) between = 0;
    // Counted from the claims themselves: no death can leave a counter wrong.
    in_flight_bytes += claimed_bytes(sums, between, block, now);
    if (in_flight_bytes >= most_bytes) {
      if (!doubted) throughput_.looked(in_flight_bytes);
      break;
    }
    others_first = others_first || (doubted && is_left_free(sums, between, block));
    if (others_first && in_flight_bytes != 0) break;
    if (plan_->position(plan_->blocks()[block]) >= limit_bytes) break;
    std::uint16_t state = kFree;
    const bool taken = memory_.states[block].compare_exchange_strong(state, mine);
    if (taken || blocks_.is_to_recheck(i, state)) {
      blocks_.give_out(i, taken);
      if (taken && !doubted) throughput_.looked(in_flight_bytes + sums.of(block));
      return Claim{block, !taken, now};
    }
    in_flight_bytes += claimed_bytes(sums, block, block + 1, now);
  }
  return std::nullopt;
}

// Asked after the claim: whoever joins says what it wants before it looks for claims.
std::vector<ByteRange> BoardClaims::ranges(const Claim& claim) const {
  if (claim.done_before) return plan_->wanted(plan_->blocks()[claim.block]);
  const MutexLock lock(mutex_);
  return wants_.ranges(claim.block);
}

void BoardClaims::settle(const Claim& claim, Outcome outcome, std::uint64_t read_bytes) {
  show_life();
  watch_throughput(claim.block, read_bytes);
  if (claim.done_before) return;
  put_down(claim.block);
  // It may have been taken over meanwhile: then it is another's to settle.
  auto expected = claimed_by(file_.slot());
  const std::uint16_t settled = state_after(outcome);
  const bool ours = memory_.states[claim.block].compare_exchange_strong(expected, settled);
  if (ours && outcome != Outcome::released) note_pace(claim.taken);
  ring(memory_.header->doorbell);
}

void BoardClaims::put_down(std::uint32_t block) {
  const MutexLock lock(mutex_);
  blocks_.put_down(block);
}

bool BoardClaims::settled(std::uint64_t limit_bytes) {
  const MutexLock lock(mutex_);
  show_life();
  blocks_.advance(memory_.states);
  return blocks_.is_settled_before(limit_bytes);
}

void BoardClaims::recover(bool stalled) {
  const MutexLock lock(mutex_);
  show_life();
  const auto now = runtime_.now();
  // A block that takes no longer than others do is not taken over: where each takes 20 s, the board
  // stands still for 10 s although all are at work.
  const auto long_held = kLongHeldBlocks * memory_.block_time();
  bool freed = false;
  std::array<bool, kBoardSlots> asked{};  // each slot once
  std::array<bool, kBoardSlots> gone{};   // dead, or as good as
  for (std::size_t i = blocks_.first_open(); i < wanted_.size(); ++i) {
    BlockState& state = memory_.states[wanted_[i]];
    std::uint16_t seen = state;
    const auto since = others_.look_at(i, seen, now);
    if (seen == kFree || is_settled(seen)) continue;
    const auto slot = static_cast<std::uint32_t>(seen - kClaimed);
    const bool own = slot == file_.slot();
    // A word that means nothing is no one's claim, nor is one of this slot that is not in hand.
    if (is_claimed(seen) && (!own || blocks_.is_in_hand(i))) {
      if (!asked[slot]) gone[slot] = is_silent(slot, now) || file_.is_dead(slot);
      asked[slot] = true;
      if (own || (!gone[slot] && (!stalled || now - since < long_held))) continue;
    }
    freed |= state.compare_exchange_strong(seen, kFree);
  }
  std::uint32_t watcher = memory_.header->watcher;
  if (watcher > kBoardSlots ||
      (watcher != 0 && (is_silent(watcher - 1, now) || file_.is_dead(watcher - 1)))) {
    memory_.header->watcher.compare_exchange_strong(watcher, 0);
  }
  bury_consumers();
  if (freed) ring(memory_.header->doorbell);
}

void BoardClaims::report_consumer(const ConsumerPosition& position) {
  show_life();
  ConsumerSlot& mine = memory_.header->consumers[file_.slot()];
  mine.consumed_bytes = position.consumed_bytes;
  mine.needed_bytes = position.needed_bytes;
  mine.released_bytes = position.released_bytes;
  if (mine.active != 0) return;
  mine.active = 1;
  std::uint32_t slots = memory_.header->consumer_slots;
  while (slots <= file_.slot() &&
         !memory_.header->consumer_slots.compare_exchange_weak(slots, file_.slot() + 1)) {
  }
  // Others may have dropped what this consumer is still to read: that is to be dropped once more.
  memory_.header->dropped_bytes = 0;
}

bool BoardClaims::end_consumer() {
  memory_.header->consumers[file_.slot()].active = 0;
  ring(memory_.header->doorbell);
  {
    const MutexLock lock(mutex_);
    bury_consumers();
  }
  return std::ranges::none_of(memory_.used_consumers(),
                              [](const ConsumerSlot& consumer) { return consumer.active != 0; });
}

void BoardClaims::bury_consumers() {
  const auto consumers = memory_.used_consumers();
  for (std::uint32_t slot = 0; slot < consumers.size(); ++slot) {
    ConsumerSlot& consumer = consumers[slot];
    if (consumer.active != 0 && file_.is_dead(slot)) consumer.active = 0;
  }
}

std::optional<ConsumerPosition> BoardClaims::slowest_consumer(
    std::chrono::steady_clock::time_point now) {
  const MutexLock lock(mutex_);
  show_life();
  return others_.slowest_consumer(memory_.used_consumers(), now);
}

std::optional<ByteRange> BoardClaims::take_dropping(std::uint64_t until_bytes) {
  std::uint64_t dropped = memory_.header->dropped_bytes;
  if (until_bytes < kDroppedAtOnceBytes || until_bytes - kDroppedAtOnceBytes < dropped) {
    return std::nullopt;
  }
  if (!memory_.header->dropped_bytes.compare_exchange_strong(dropped, until_bytes))
    return std::nullopt;
  return ByteRange{dropped, until_bytes - dropped};
}

std::optional<Standing> BoardClaims::standing(BlockRange blocks) const {
  show_life();
  Standing found;
  std::uint16_t first_state = kFree;
  for (std::uint32_t block = blocks.begin; block < blocks.end; ++block) {
    const std::uint16_t state = memory_.states[block];
    found.failed |= state == kFailed;
    if (is_settled(state)) continue;
    if (memory_.wants[block] == kNotWanted) return std::nullopt;
    if (found.unsettled++ > 0) continue;
    found.first_unsettled = block;
    found.claimed = is_claimed(state);
    first_state = state;
  }
  if (!found.claimed) return found;
  const MutexLock lock(mutex_);
  const auto place = blocks_.place_of(found.first_unsettled);
  if (place) found.held_since = others_.held_since(*place, first_state);
  return found;
}

SharedFigures BoardClaims::shared() const {
  const std::uint64_t read_bytes = memory_.header->read_bytes;
  const MutexLock lock(mutex_);
  return blocks_.shared(read_bytes);
}

std::uint64_t BoardClaims::window_end(std::uint64_t window_bytes,
                                      const ConsumerPosition& consumer) const {
  const MutexLock lock(mutex_);
  return wants_.sums().window_end(window_bytes, consumer);
}

std::uint64_t BoardClaims::behind(std::uint64_t position, std::uint64_t wanted_bytes) const {
  const MutexLock lock(mutex_);
  return wants_.sums().behind(position, wanted_bytes);
}

void BoardClaims::tell_keeping(Keeping found) {
  memory_.header->keeping = static_cast<std::uint32_t>(found);
  ring(doorbell());  // for workers that wait for a block: there is none to be had any more
}

Keeping BoardClaims::told_keeping() const noexcept {
  const std::uint32_t told = memory_.header->keeping;
  for (const Keeping found : {Keeping::emptied_by_open, Keeping::uncached}) {
    if (told == static_cast<std::uint32_t>(found)) return found;
  }
  return Keeping::unknown;
}

void BoardClaims::tell_misled() {
  ++memory_.header->misled;
  ring(memory_.header->doorbell);  // for consumers that wait for what may be wrong as well
}

bool BoardClaims::told_misled() const noexcept { return memory_.header->misled != misled_before_; }

void BoardClaims::tell_opened() {
  memory_.header->consumers[file_.slot()].opened = 1;
  ring(memory_.header->doorbell);
}

std::optional<Meeting> BoardClaims::meeting() {
  const MutexLock lock(mutex_);
  bury_consumers();
  Meeting found;
  for (const ConsumerSlot& consumer : memory_.used_consumers()) {
    if (consumer.opened != 0) {
      ++found.opened;
    } else if (consumer.active != 0) {
      ++found.opening;
    }
  }
  return found;
}

DoorbellWord& BoardClaims::doorbell() noexcept { return memory_.header->doorbell; }

}  // namespace shardahead
