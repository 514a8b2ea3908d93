#include "plan/window.h"

#include <algorithm>

#include "base/byte_range.h"

namespace shardahead {
namespace {

// Ahead and behind together take half of the budget: what the consumers hold and what others take
// meanwhile must fit as well, for once the kernel has to choose it evicts what was not read yet.
constexpr std::uint64_t kShareOfBudget = 4;
// Where the consumer keeps mapped what it has passed, the kernel evicts what it has not read yet,
// unless that is little: of 2.7 GB it keeps 0.45 for pages that no mapping has read.
constexpr std::uint64_t kSmallShareOfBudget = 16;
constexpr std::uint64_t kLeastBytes = 32 * kMiB;
// Less evicted than this is no sign of short memory: kernels evict single pages of their own
// accord.
constexpr std::uint64_t kEvictedBytes = 1 * kMiB;
constexpr std::uint32_t kMostHalvings = 5;
constexpr auto kBetweenHalvings = std::chrono::seconds(1);
constexpr auto kBeforeDoubling = std::chrono::seconds(10);

}  // namespace

ConsumerPosition slower_of(const ConsumerPosition& one, const ConsumerPosition& other) noexcept {
  ConsumerPosition slower = one.consumed_bytes <= other.consumed_bytes ? one : other;
  slower.released_bytes = std::min(one.released_bytes, other.released_bytes);
  return slower;
}

bool ConsumerWatch::moves(const ConsumerPosition& position, Time now) noexcept {
  if (seen_ != position) {
    seen_ = position;
    since_ = now;
  }
  return now - since_ < kPatience;
}

const char* to_string(WindowSource source) noexcept {
  switch (source) {
    case WindowSource::none: break;
    case WindowSource::given: return "given";
    case WindowSource::memory: return "memory";
  }
  return "none";
}

WindowControl::WindowControl(std::optional<std::uint64_t> given_bytes, std::uint64_t wanted_bytes,
                             Follows follows) noexcept
    : given_bytes_(given_bytes), wanted_bytes_(wanted_bytes), follows_(follows) {}

void WindowControl::set_budget(std::optional<std::uint64_t> budget_bytes, Time now) noexcept {
  budget_bytes_ = budget_bytes;
  if (halvings_ == 0 || now - changed_ < kBeforeDoubling) return;
  --halvings_;
  changed_ = now;
}

void WindowControl::add_evicted(std::uint64_t bytes, Time now) noexcept {
  evicted_bytes_ += bytes;
  if (evicted_bytes_ < kEvictedBytes || halvings_ == kMostHalvings) return;
  if (halvings_ > 0 && now - changed_ < kBetweenHalvings) return;
  evicted_bytes_ = 0;
  ++halvings_;
  changed_ = now;
}

bool WindowControl::is_short() const noexcept {
  return halvings_ > 0 || (budget_bytes_ && wanted_bytes_ > *budget_bytes_);
}

Window WindowControl::window() const noexcept {
  const std::uint64_t budget_bytes =
      std::max<std::uint64_t>(std::min(budget_bytes_.value_or(wanted_bytes_), wanted_bytes_), 1);
  const std::uint64_t share_bytes = std::max<std::uint64_t>(budget_bytes / kShareOfBudget, 1);
  Window window;
  if (given_bytes_) {
    window.ahead_bytes = *given_bytes_;
    window.source = *given_bytes_ > 0 ? WindowSource::given : WindowSource::none;
  } else if (is_short()) {
    window.ahead_bytes = budget_bytes;
    if (follows_ == Follows::releasing_consumer) window.ahead_bytes = share_bytes;
    if (follows_ == Follows::holding_consumer) {
      window.ahead_bytes = std::max<std::uint64_t>(budget_bytes / kSmallShareOfBudget, 1);
    }
    window.source = WindowSource::memory;
  }
  if (follows_ == Follows::no_one || !is_short()) return window;
  window.keep_bytes = share_bytes >> halvings_;
  const std::uint64_t least_bytes = std::min(window.ahead_bytes, kLeastBytes);
  window.ahead_bytes = std::max(window.ahead_bytes >> halvings_, least_bytes);
  return window;
}

}  // namespace shardahead
