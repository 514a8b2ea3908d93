#include "plan/rate_limit.h"

#include <algorithm>

namespace shardahead {
namespace {

using std::chrono::nanoseconds;

constexpr std::uint64_t kBurstsPerSecond = 10;
// So that sums of a few of them stay within 64 bits: 73 years.
constexpr std::uint64_t kMostNanoseconds = std::uint64_t{1} << 61U;

std::uint64_t nanoseconds_of(RateLimit::Time now) {
  const auto since = std::chrono::duration_cast<nanoseconds>(now.time_since_epoch()).count();
  return std::min(static_cast<std::uint64_t>(std::max<std::int64_t>(since, 0)), kMostNanoseconds);
}

}  // namespace

RateLimit::RateLimit(std::uint64_t bytes_per_s, std::uint64_t piece_bytes)
    : bytes_per_s_(bytes_per_s), burst_bytes_(piece_bytes + bytes_per_s / kBurstsPerSecond) {}

nanoseconds RateLimit::pause(PaidUntil paid_until, std::uint64_t bytes, Time now) const noexcept {
  if (!limits()) return nanoseconds(0);
  const PaidUntil after = paid(paid_until, bytes, now);
  // What is more than a burst may be read once nothing is owed.
  const PaidUntil allowed = nanoseconds_of(now) + std::max(price(burst_bytes_), price(bytes));
  return nanoseconds(after > allowed ? static_cast<std::int64_t>(after - allowed) : 0);
}

RateLimit::PaidUntil RateLimit::paid(PaidUntil paid_until, std::uint64_t bytes,
                                     Time now) const noexcept {
  // An account beyond all debt means nothing: it is of another clock, or someone wrote to it.
  if (paid_until > most(now)) paid_until = 0;
  return std::max(paid_until, nanoseconds_of(now)) + price(bytes);
}

RateLimit::PaidUntil RateLimit::charged(PaidUntil paid_until, std::uint64_t bytes,
                                        Time now) const noexcept {
  return std::min(paid(paid_until, bytes, now), most(now));
}

RateLimit::PaidUntil RateLimit::paid_back(PaidUntil paid_until,
                                          std::uint64_t bytes) const noexcept {
  return paid_until - std::min(paid_until, price(bytes));
}

RateLimit::PaidUntil RateLimit::price(std::uint64_t bytes) const noexcept {
  if (!limits()) return 0;
  const double seconds = static_cast<double>(bytes) / static_cast<double>(bytes_per_s_);
  return static_cast<PaidUntil>(std::min(seconds * 1e9, static_cast<double>(kMostNanoseconds)));
}

RateLimit::PaidUntil RateLimit::most(Time now) const noexcept {
  return nanoseconds_of(now) + price(burst_bytes_) +
         static_cast<PaidUntil>(nanoseconds(kMostDebt).count());
}

}  // namespace shardahead
