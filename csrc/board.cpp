#include "board.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <limits>
#include <span>
#include <utility>

namespace shardahead {
namespace {

constexpr std::uint64_t kMagic = 0x6461656861726873;  // "shrahead", little-endian
constexpr std::uint32_t kVersion = 2;

using BlockState = std::atomic<std::uint16_t>;
using BlockWants = std::atomic<std::uint8_t>;
static_assert(BlockState::is_always_lock_free && BlockWants::is_always_lock_free);

// What a block's state says: one of these, or claimed by slot state - kClaimed.
constexpr std::uint16_t kFree = 0;  // zeroed memory is a board on which nothing has been done
constexpr std::uint16_t kDone = 1;
constexpr std::uint16_t kFailed = 2;
constexpr std::uint16_t kClaimed = 16;

// How much of a block is wanted: nothing, parts of it by one participant, more than that.
constexpr std::uint8_t kNotWanted = 0;
constexpr std::uint8_t kWantedPartly = 1;
constexpr std::uint8_t kWantedWhole = 2;

std::string board_prefix() { return "shardahead-" + std::to_string(::geteuid()) + "-"; }

std::uint16_t state_after(Outcome outcome) {
  switch (outcome) {
    case Outcome::done: return kDone;
    case Outcome::failed: return kFailed;
    case Outcome::released: break;
  }
  return kFree;
}

bool is_settled(std::uint16_t state) { return state == kDone || state == kFailed; }

std::uint64_t largest_block_bytes(const Plan& plan, const std::vector<std::uint32_t>& wanted) {
  std::uint64_t bytes = kMinBlockBytes;
  for (const std::uint32_t block : wanted) {
    bytes = std::max(bytes, plan.blocks()[block].range.length);
  }
  return bytes;
}

// FNV-1a, twice with different starts: names a load, protects from nothing.
class Fingerprint {
 public:
  void add(std::uint64_t value) {
    for (int shift = 0; shift < 64; shift += 8) {
      const auto byte = static_cast<std::uint8_t>(value >> static_cast<unsigned>(shift));
      for (std::uint64_t& half : halves_) half = (half ^ byte) * 0x100000001b3;
    }
    halves_[1] ^= halves_[0] >> 29U;
  }
  void add(const std::string& text) {
    for (const char character : text) add(static_cast<std::uint64_t>(character));
  }
  [[nodiscard]] std::string hex() const {
    std::array<char, 33> text{};
    std::snprintf(text.data(), text.size(), "%016llx%016llx",
                  static_cast<unsigned long long>(halves_[0]),
                  static_cast<unsigned long long>(halves_[1]));
    return text.data();
  }

 private:
  std::array<std::uint64_t, 2> halves_{0xcbf29ce484222325, 0x84222325cbf29ce4};
};

}  // namespace

namespace {

// One participant's consumer. Each figure is right by itself; together they may be of two moments.
struct alignas(32) ConsumerSlot {
  std::atomic<std::uint64_t> consumed_bytes;
  std::atomic<std::uint64_t> needed_bytes;
  std::atomic<std::uint64_t> released_bytes;
  std::atomic<std::uint32_t> active;
};

// The least that is worth a call: the kernel takes a while for each, however little it drops.
constexpr std::uint64_t kDroppedAtOnceBytes = 16 * kMiB;

}  // namespace

// In shared memory, zeroed at first; the states and then the wants of all blocks follow it.
struct BoardMemory {  // NOLINT(clang-analyzer-optin.performance.Padding): no false sharing
  std::atomic<std::uint64_t> magic;
  std::atomic<std::uint32_t> version;
  std::atomic<std::uint32_t> block_count;
  std::atomic<std::uint64_t> inflight_bytes;  // what may be in flight on this node
  std::atomic<std::uint64_t> read_bytes;      // brought in so far, by anyone
  std::atomic<std::uint32_t> watcher;         // slot + 1 of who watches the throughput
  std::atomic<std::uint32_t> consumer_slots;  // all slots with a consumer are below this
  std::atomic<std::uint64_t> dropped_bytes;   // everything before has been dropped
  std::array<ConsumerSlot, kBoardSlots> consumers;
  alignas(64) DoorbellWord doorbell;
  alignas(64) std::byte end;

  static std::size_t size_bytes(std::size_t block_count) {
    return sizeof(BoardMemory) + block_count * (sizeof(BlockState) + sizeof(BlockWants));
  }
  // Never beyond the array, whatever stands in the shared memory.
  std::span<ConsumerSlot> used_consumers() {
    return std::span(consumers).first(std::min(consumer_slots.load(), kBoardSlots));
  }
  BlockState& state(std::size_t block) { return reinterpret_cast<BlockState*>(this + 1)[block]; }
  BlockWants& wants(std::size_t block) {
    auto* states_end = reinterpret_cast<BlockState*>(this + 1) + block_count.load();
    return reinterpret_cast<BlockWants*>(states_end)[block];
  }
};

std::string board_name(const FileTable& files, const Plan& plan) {
  Fingerprint fingerprint;
  fingerprint.add(kVersion);
  std::ifstream boot("/proc/sys/kernel/random/boot_id");
  std::string boot_id;
  std::getline(boot, boot_id);
  fingerprint.add(boot_id);
  for (std::size_t i = 0; i < files.size(); ++i) {
    const FileStatus& status = files.status(i);
    fingerprint.add(status.device);
    fingerprint.add(status.inode);
    fingerprint.add(status.size_bytes);
    fingerprint.add(static_cast<std::uint64_t>(status.modified_nanoseconds));
  }
  // How the files are cut: the first block of the full size tells the block size.
  fingerprint.add(plan.blocks().size());
  for (const Block& block : plan.blocks()) fingerprint.add(block.range.length);
  return board_prefix() + fingerprint.hex();
}

std::unique_ptr<BoardClaims> BoardClaims::join(const std::string& folder, const std::string& name,
                                               std::shared_ptr<const Plan> plan,
                                               std::vector<std::uint32_t> wanted,
                                               BoardRefusal& refusal,
                                               std::uint64_t set_inflight_bytes, Runtime& runtime) {
  const std::size_t block_count = plan->blocks().size();
  auto file = BoardFile::join(folder, name, BoardMemory::size_bytes(block_count), refusal);
  if (!file) return nullptr;
  if (file->first()) BoardFile::sweep(folder, board_prefix());
  auto* memory = reinterpret_cast<BoardMemory*>(file->memory());
  if (file->first()) {
    memory->version = kVersion;
    memory->block_count = static_cast<std::uint32_t>(block_count);
    memory->magic = kMagic;
  }
  if (memory->magic != kMagic || memory->version != kVersion ||
      memory->block_count != block_count) {
    refusal.reason = folder + "/" + name + ": not a board of this version";
    return nullptr;
  }
  return std::unique_ptr<BoardClaims>(new BoardClaims(
      std::move(*file), std::move(plan), std::move(wanted), set_inflight_bytes, runtime));
}

BoardClaims::BoardClaims(BoardFile file, std::shared_ptr<const Plan> plan,
                         std::vector<std::uint32_t> wanted, std::uint64_t set_inflight_bytes,
                         Runtime& runtime)
    : file_(std::move(file)),
      memory_(reinterpret_cast<BoardMemory*>(file_.memory())),
      plan_(std::move(plan)),
      wanted_(std::move(wanted)),
      runtime_(runtime),
      recheck_(wanted_.size()),
      own_(wanted_.size()),
      watches_(kBoardSlots),
      largest_block_bytes_(largest_block_bytes(*plan_, wanted_)),
      climb_(largest_block_bytes_, set_inflight_bytes),
      epoch_started_(runtime.now()) {
  if (file_.first() || set_inflight_bytes != 0) memory_->inflight_bytes = climb_.bytes();
  // Who had this slot before is dead: its claims are nobody's, and it consumes nothing.
  memory_->consumers[file_.slot()].active = 0;
  const auto mine = static_cast<std::uint16_t>(kClaimed + file_.slot());
  for (std::size_t block = 0; block < plan_->blocks().size(); ++block) {
    std::uint16_t expected = mine;
    memory_->state(block).compare_exchange_strong(expected, kFree);
  }
  for (std::size_t i = 0; i < wanted_.size(); ++i) {
    const Block& block = plan_->blocks()[wanted_[i]];
    const bool whole = plan_->wanted_bytes(block) == block.range.length;
    BlockWants& wants = memory_->wants(wanted_[i]);
    std::uint8_t expected = kNotWanted;
    if (whole || !wants.compare_exchange_strong(expected, kWantedPartly)) wants = kWantedWhole;
    // Whoever is at work on it may not have known yet what is wanted here.
    recheck_[i] = memory_->state(wanted_[i]) != kFree;
  }
}

BoardClaims::~BoardClaims() {
  BoardClaims::end_consumer();
  std::uint32_t mine = file_.slot() + 1;
  memory_->watcher.compare_exchange_strong(mine, 0);
}

std::optional<Claim> BoardClaims::take(std::uint64_t limit_bytes) {
  const std::lock_guard lock(mutex_);
  advance();
  const auto mine = static_cast<std::uint16_t>(kClaimed + file_.slot());
  const std::uint64_t most_bytes = memory_->inflight_bytes;
  std::uint64_t in_flight_bytes = 0;
  for (std::size_t i = first_open_; i < wanted_.size(); ++i) {
    const std::uint32_t block = wanted_[i];
    // Counted from the claims themselves: no death can leave a counter wrong.
    in_flight_bytes += claimed_bytes(i == first_open_ ? block : wanted_[i - 1] + 1, block);
    if (in_flight_bytes >= most_bytes) break;
    if (plan_->position(plan_->blocks()[block]) >= limit_bytes) break;
    std::uint16_t state = kFree;
    const bool taken = memory_->state(block).compare_exchange_strong(state, mine);
    if (taken || (recheck_[i] && is_settled(state))) {
      recheck_[i] = false;
      own_[i] = true;
      // Asked after the claim: whoever joins says what it wants before it looks for claims.
      return Claim{block, memory_->wants(block) == kWantedWhole, !taken};
    }
    in_flight_bytes += claimed_bytes(block, block + 1);
  }
  return std::nullopt;
}

void BoardClaims::settle(const Claim& claim, Outcome outcome, std::uint64_t read_bytes) {
  watch_throughput(claim.block, read_bytes);
  if (claim.done_before) return;
  // It may have been taken over meanwhile: then it is another's to settle.
  auto expected = static_cast<std::uint16_t>(kClaimed + file_.slot());
  const std::uint16_t settled = state_after(outcome);
  memory_->state(claim.block).compare_exchange_strong(expected, settled);
  ring(memory_->doorbell);
}

void BoardClaims::watch_throughput(std::uint32_t block, std::uint64_t read_bytes) {
  const std::uint64_t all_bytes = memory_->read_bytes.fetch_add(read_bytes) + read_bytes;
  const std::lock_guard lock(mutex_);
  const std::uint32_t mine = file_.slot() + 1;
  std::uint32_t watcher = 0;
  if (memory_->watcher != mine) {
    if (!memory_->watcher.compare_exchange_strong(watcher, mine)) return;
    climb_.resume(memory_->inflight_bytes);
  }
  const auto now = runtime_.now();
  const std::uint64_t bytes = all_bytes - std::min(all_bytes, epoch_started_bytes_);
  if (epoch_started_bytes_ == 0) {
    // The first epoch begins with the first block of the full size: many small ones at the head
    // say nothing of the large ones that follow.
    if (plan_->blocks()[block].range.length < largest_block_bytes_ / 2) return;
    epoch_started_bytes_ = all_bytes;
    epoch_started_ = now;
    return;
  }
  const double seconds = std::chrono::duration<double>(now - epoch_started_).count();
  if (climb_.is_epoch(bytes, seconds)) {
    climb_.epoch(bytes, seconds);
    memory_->inflight_bytes = climb_.bytes();
    epoch_started_bytes_ = all_bytes;
    epoch_started_ = now;
  }
}

std::uint64_t BoardClaims::claimed_bytes(std::uint32_t begin, std::uint32_t end) const {
  std::uint64_t bytes = 0;
  for (std::uint32_t block = begin; block < end; ++block) {
    if (memory_->state(block) >= kClaimed) bytes += plan_->blocks()[block].range.length;
  }
  return bytes;
}

std::uint64_t BoardClaims::inflight_bytes() const noexcept { return memory_->inflight_bytes; }

bool BoardClaims::settled(std::uint64_t limit_bytes) {
  const std::lock_guard lock(mutex_);
  advance();
  return first_open_ == wanted_.size() ||
         plan_->position(plan_->blocks()[wanted_[first_open_]]) >= limit_bytes;
}

void BoardClaims::advance() {
  for (; first_open_ < wanted_.size(); ++first_open_) {
    const std::uint32_t block = wanted_[first_open_];
    const std::uint16_t state = memory_->state(block);
    if (recheck_[first_open_] || !is_settled(state)) return;
    if (own_[first_open_]) continue;
    const std::uint64_t bytes = plan_->wanted_bytes(plan_->blocks()[block]);
    (state == kDone ? shared_.done_bytes : shared_.failed_bytes) += bytes;
  }
}

void BoardClaims::recover(bool stalled) {
  const std::lock_guard lock(mutex_);
  bool freed = false;
  std::array<bool, kBoardSlots> asked{};  // each slot once
  std::array<bool, kBoardSlots> dead{};
  for (std::size_t i = first_open_; i < wanted_.size(); ++i) {
    BlockState& state = memory_->state(wanted_[i]);
    std::uint16_t seen = state;
    if (seen < kClaimed || seen == kClaimed + file_.slot()) continue;
    const auto slot = static_cast<std::uint32_t>(seen - kClaimed);
    if (slot < kBoardSlots) {  // else no one can have claimed it
      if (!asked[slot]) dead[slot] = file_.is_dead(slot);
      asked[slot] = true;
      if (!dead[slot] && !stalled) continue;
      if (!dead[slot]) stalled = false;
    }
    freed |= state.compare_exchange_strong(seen, kFree);
  }
  std::uint32_t watcher = memory_->watcher;
  if (watcher != 0 && file_.is_dead(watcher - 1)) {
    memory_->watcher.compare_exchange_strong(watcher, 0);
  }
  bury_consumers();
  if (freed) ring(memory_->doorbell);
}

void BoardClaims::report_consumer(const ConsumerPosition& position) {
  ConsumerSlot& mine = memory_->consumers[file_.slot()];
  mine.consumed_bytes = position.consumed_bytes;
  mine.needed_bytes = position.needed_bytes;
  mine.released_bytes = position.released_bytes;
  if (mine.active != 0) return;
  mine.active = 1;
  std::uint32_t slots = memory_->consumer_slots;
  while (slots <= file_.slot() &&
         !memory_->consumer_slots.compare_exchange_weak(slots, file_.slot() + 1)) {
  }
  // It begins where others may have dropped already.
  memory_->dropped_bytes = 0;
}

bool BoardClaims::end_consumer() {
  memory_->consumers[file_.slot()].active = 0;
  ring(memory_->doorbell);
  {
    const std::lock_guard lock(mutex_);
    bury_consumers();
  }
  return std::ranges::none_of(memory_->used_consumers(),
                              [](const ConsumerSlot& consumer) { return consumer.active != 0; });
}

// Called with the mutex locked.
void BoardClaims::bury_consumers() {
  const auto consumers = memory_->used_consumers();
  for (std::uint32_t slot = 0; slot < consumers.size(); ++slot) {
    ConsumerSlot& consumer = consumers[slot];
    if (consumer.active != 0 && file_.is_dead(slot)) consumer.active = 0;
  }
}

std::optional<ConsumerPosition> BoardClaims::slowest_consumer(
    std::chrono::steady_clock::time_point now) {
  const std::lock_guard lock(mutex_);
  std::optional<ConsumerPosition> slowest;
  const auto consumers = memory_->used_consumers();
  for (std::uint32_t slot = 0; slot < consumers.size(); ++slot) {
    const ConsumerSlot& consumer = consumers[slot];
    if (consumer.active == 0) continue;
    const ConsumerPosition position = {consumer.consumed_bytes, consumer.needed_bytes,
                                       consumer.released_bytes};
    if (slot != file_.slot() && !watches_[slot].moves(position, now)) continue;
    slowest = slowest ? slower_of(*slowest, position) : position;
  }
  return slowest;
}

std::optional<ByteRange> BoardClaims::take_dropping(std::uint64_t until_bytes) {
  std::uint64_t dropped = memory_->dropped_bytes;
  if (until_bytes < kDroppedAtOnceBytes || until_bytes - kDroppedAtOnceBytes < dropped) {
    return std::nullopt;
  }
  if (!memory_->dropped_bytes.compare_exchange_strong(dropped, until_bytes)) return std::nullopt;
  return ByteRange{dropped, until_bytes - dropped};
}

std::optional<Standing> BoardClaims::standing(BlockRange blocks) const {
  Standing found;
  for (std::uint32_t block = blocks.begin; block < blocks.end; ++block) {
    const std::uint16_t state = memory_->state(block);
    found.failed |= state == kFailed;
    if (is_settled(state)) continue;
    if (memory_->wants(block) == kNotWanted) return std::nullopt;
    if (found.unsettled++ > 0) continue;
    found.first_unsettled = block;
    found.claimed = state >= kClaimed;
  }
  return found;
}

std::vector<std::uint32_t> BoardClaims::failed() const {
  std::vector<std::uint32_t> blocks;
  for (const std::uint32_t block : wanted_) {
    if (memory_->state(block) == kFailed) blocks.push_back(block);
  }
  return blocks;
}

SharedFigures BoardClaims::shared() const {
  const std::lock_guard lock(mutex_);
  return shared_;
}

DoorbellWord& BoardClaims::doorbell() noexcept { return memory_->doorbell; }

}  // namespace shardahead
