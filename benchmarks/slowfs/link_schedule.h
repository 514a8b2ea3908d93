// link_schedule: when a reply leaves a shared link of a given rate and round trip. Pure arithmetic
// on virtual time: no clock, no I/O, no sleeping, so lateness of whoever acts on it never adds up.
// Not thread-safe: one thread admits requests, in order of arrival; several schedules of one link
// may each have a thread, or a process, of their own.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

namespace slowfs {

using Nanoseconds = std::chrono::nanoseconds;
// Time since any epoch the caller likes, as long as it never goes back.
using Instant = std::chrono::time_point<std::chrono::steady_clock, Nanoseconds>;

// From when on a link is free, in nanoseconds of that time. What stands in it is the whole state of
// a link, so that several processes can share one.
using FreeFrom = std::atomic<std::int64_t>;
static_assert(FreeFrom::is_always_lock_free, "it may lie in memory that processes share");

// Where the bytes of a request lie.
struct Place {
  std::uint64_t file = 0;
  std::uint64_t offset = 0;
  friend bool operator==(const Place&, const Place&) = default;
};

class LinkSchedule {
 public:
  // bytes_per_s 0: a link that takes no time. `seek`: what a request costs that does not begin
  // where the one before it ended, as on a single disk behind the link. `shared`: the link is that
  // of other schedules too, and outlives this one; else it is this one's own.
  LinkSchedule(std::uint64_t bytes_per_s, Nanoseconds round_trip, Nanoseconds seek = Nanoseconds{0},
               FreeFrom* shared = nullptr) noexcept
      : bytes_per_s_(bytes_per_s), round_trip_(round_trip), seek_(seek), shared_(shared) {}

  // The instant at which the last byte of a reply is through, for a request that arrived at
  // `arrival`. Transfers go one after another, in the order in which they were admitted.
  [[nodiscard]] Instant admit(Instant arrival, std::uint64_t reply_bytes,
                              Place place = {}) noexcept {
    const Nanoseconds taken =
        (continues_at(place) ? Nanoseconds{0} : seek_) + transfer_time(reply_bytes);
    next_place_ = {place.file, place.offset + reply_bytes};
    FreeFrom& free_from = shared_ != nullptr ? *shared_ : own_;
    std::int64_t before = free_from.load();
    Instant end;
    do {
      end = std::max(arrival + round_trip_, Instant{Nanoseconds{before}}) + taken;
    } while (!free_from.compare_exchange_weak(before, end.time_since_epoch().count()));
    return end;
  }

  // Whether a request at that place begins where the last one ended.
  [[nodiscard]] bool continues_at(Place place) const noexcept { return place == next_place_; }

  // Both hold for requests admitted from now on; what was admitted keeps its place.
  void set_rate(std::uint64_t bytes_per_s) noexcept {
    bytes_per_s_ = bytes_per_s;
    remainder_ = 0;
  }
  void set_round_trip(Nanoseconds round_trip) noexcept { round_trip_ = round_trip; }

  [[nodiscard]] std::uint64_t bytes_per_s() const noexcept { return bytes_per_s_; }
  [[nodiscard]] Nanoseconds round_trip() const noexcept { return round_trip_; }

 private:
  // The fraction of a nanosecond that is cut off here is carried to the next transfer. A reply is
  // at most a few MiB, so bytes * 10^9 fits by a factor of a thousand.
  Nanoseconds transfer_time(std::uint64_t bytes) noexcept {
    if (bytes_per_s_ == 0) return Nanoseconds{0};
    const std::uint64_t scaled = bytes * 1'000'000'000U + remainder_;
    remainder_ = scaled % bytes_per_s_;
    return Nanoseconds{static_cast<std::int64_t>(scaled / bytes_per_s_)};
  }

  std::uint64_t bytes_per_s_;
  Nanoseconds round_trip_;
  Nanoseconds seek_;
  Place next_place_;
  std::uint64_t remainder_ = 0;
  FreeFrom* shared_;
  FreeFrom own_{0};
};

}  // namespace slowfs
