#include "board/claims.h"

#include <utility>

namespace shardahead {

StaticClaims::StaticClaims(std::shared_ptr<const Plan> plan, std::vector<std::uint32_t> share)
    : plan_(std::move(plan)),
      share_(std::move(share)),
      sums_(*plan_),
      notes_(plan_->blocks().size()) {}

std::optional<Claim> StaticClaims::take(std::uint64_t limit_bytes) {
  const MutexLock lock(mutex_);
  if (next_ == share_.size()) return std::nullopt;
  const std::uint32_t index = share_[next_];
  if (plan_->position(plan_->blocks()[index]) >= limit_bytes) return std::nullopt;
  ++next_;
  return Claim{.block = index};
}

std::vector<ByteRange> StaticClaims::ranges(const Claim& claim) const {
  return plan_->wanted(plan_->blocks()[claim.block]);
}

void StaticClaims::settle(const Claim&, Outcome, std::uint64_t) {}

// A block of a fixed share is never given back: once all are taken no further worker is needed.
bool StaticClaims::settled(std::uint64_t limit_bytes) {
  const MutexLock lock(mutex_);
  return next_ == share_.size() || plan_->position(plan_->blocks()[share_[next_]]) >= limit_bytes;
}

}  // namespace shardahead
