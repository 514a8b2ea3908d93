#include "board.h"

#include <unistd.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <limits>
#include <utility>

namespace shardahead {
namespace {

constexpr std::uint64_t kMagic = 0x6461656861726873;  // "shrahead", little-endian
constexpr std::uint32_t kVersion = 1;

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

bool is_settled(std::uint16_t state) { return state == kDone || state == kFailed; }

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

// In shared memory, zeroed at first; the states and then the wants of all blocks follow it.
struct BoardMemory {
  std::atomic<std::uint64_t> magic;
  std::atomic<std::uint32_t> version;
  std::atomic<std::uint32_t> block_count;
  alignas(64) DoorbellWord doorbell;
  alignas(64) std::byte end;

  static std::size_t size_bytes(std::size_t block_count) {
    return sizeof(BoardMemory) + block_count * (sizeof(BlockState) + sizeof(BlockWants));
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
                                               BoardRefusal& refusal) {
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
  return std::unique_ptr<BoardClaims>(
      new BoardClaims(std::move(*file), std::move(plan), std::move(wanted)));
}

BoardClaims::BoardClaims(BoardFile file, std::shared_ptr<const Plan> plan,
                         std::vector<std::uint32_t> wanted)
    : file_(std::move(file)),
      memory_(reinterpret_cast<BoardMemory*>(file_.memory())),
      plan_(std::move(plan)),
      wanted_(std::move(wanted)),
      recheck_(wanted_.size()),
      own_(wanted_.size()) {
  // Who had this slot before is dead: its claims are nobody's.
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
    if (whole) {
      wants = kWantedWhole;
    } else if (!wants.compare_exchange_strong(expected, kWantedPartly)) {
      wants = kWantedWhole;
    }
    recheck_[i] = is_settled(memory_->state(wanted_[i]));
  }
}

BoardClaims::~BoardClaims() = default;

std::optional<Claim> BoardClaims::take(std::uint64_t limit_bytes) {
  const std::lock_guard lock(mutex_);
  advance();
  const auto mine = static_cast<std::uint16_t>(kClaimed + file_.slot());
  for (std::size_t i = first_open_; i < wanted_.size(); ++i) {
    const std::uint32_t block = wanted_[i];
    if (plan_->position(plan_->blocks()[block]) >= limit_bytes) break;
    const bool whole = memory_->wants(block) == kWantedWhole;
    if (recheck_[i]) {
      recheck_[i] = false;
      own_[i] = true;
      return Claim{block, whole, true};
    }
    std::uint16_t expected = kFree;
    if (memory_->state(block).compare_exchange_strong(expected, mine)) {
      own_[i] = true;
      return Claim{block, whole, false};
    }
  }
  return std::nullopt;
}

void BoardClaims::settle(const Claim& claim, Outcome outcome) {
  if (claim.done_before) return;
  // It may have been taken over meanwhile: then it is another's to settle.
  auto expected = static_cast<std::uint16_t>(kClaimed + file_.slot());
  const std::uint16_t settled = outcome == Outcome::done     ? kDone
                                : outcome == Outcome::failed ? kFailed
                                                             : kFree;
  memory_->state(claim.block).compare_exchange_strong(expected, settled);
  ring(memory_->doorbell);
}

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
  std::array<std::optional<bool>, kBoardSlots> dead{};  // each slot is asked once
  for (std::size_t i = first_open_; i < wanted_.size(); ++i) {
    BlockState& state = memory_->state(wanted_[i]);
    std::uint16_t seen = state;
    if (seen < kClaimed || seen == kClaimed + file_.slot()) continue;
    const auto slot = static_cast<std::uint32_t>(seen - kClaimed);
    if (slot < kBoardSlots && !dead[slot]) dead[slot] = file_.is_dead(slot);
    if (slot < kBoardSlots && !*dead[slot] && !stalled) continue;
    if (slot < kBoardSlots && !*dead[slot]) stalled = false;
    freed |= state.compare_exchange_strong(seen, kFree);
  }
  if (freed) ring(memory_->doorbell);
}

SharedFigures BoardClaims::shared() const {
  const std::lock_guard lock(mutex_);
  return shared_;
}

DoorbellWord& BoardClaims::doorbell() noexcept { return memory_->doorbell; }

}  // namespace shardahead
