#include "engine/pace.h"

#include <algorithm>

namespace shardahead {
namespace {

std::uint64_t largest_block_bytes(const Plan& plan) {
  std::uint64_t bytes = 0;
  for (const Block& block : plan.blocks()) bytes = std::max(bytes, block.range.length);
  return bytes;
}

}  // namespace

Pace::Pace(Runtime& runtime, const Plan& plan, std::uint64_t rate_limit_bytes_per_s)
    : runtime_(runtime),
      block_bytes_(rate_limit_bytes_per_s != 0 ? largest_block_bytes(plan) : 0),
      limit_(rate_limit_bytes_per_s, block_bytes_) {}

// Which block it will be, and whether it is resident, is not known yet: the largest is paid for.
std::chrono::nanoseconds Pace::pay(Claims& claims) noexcept {
  if (!limit_.limits()) return std::chrono::nanoseconds(0);
  Account& account = account_of(&claims);
  RateLimit::PaidUntil seen = account;
  for (;;) {
    // After the account: what others paid a moment later would look as if it meant nothing.
    const auto now = runtime_.now();
    const auto pause = limit_.pause(seen, block_bytes_, now);
    if (pause > pause.zero()) return pause;
    if (account.compare_exchange_weak(seen, limit_.paid(seen, block_bytes_, now))) return pause;
  }
}

void Pace::settle(Claims& claims, std::uint64_t read_bytes) noexcept {
  if (!limit_.limits()) return;
  // Whole pages are read, of blocks that do not begin and end with one.
  if (read_bytes > block_bytes_) return charge(&claims, read_bytes - block_bytes_);
  const std::uint64_t unread_bytes = block_bytes_ - read_bytes;
  Account& account = account_of(&claims);
  RateLimit::PaidUntil seen = account;
  while (!account.compare_exchange_weak(seen, limit_.paid_back(seen, unread_bytes))) {
  }
}

void Pace::charge(Claims* claims, std::uint64_t read_bytes) noexcept {
  if (!limit_.limits() || read_bytes == 0) return;
  Account& account = account_of(claims);
  RateLimit::PaidUntil seen = account;
  while (!account.compare_exchange_weak(seen, limit_.charged(seen, read_bytes, runtime_.now()))) {
  }
}

Pace::Account& Pace::account_of(Claims* claims) noexcept {
  Account* const shared = claims != nullptr ? claims->rate_account(limit_.bytes_per_s()) : nullptr;
  return shared != nullptr ? *shared : own_;
}

}  // namespace shardahead
