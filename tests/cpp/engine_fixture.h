// engine_fixture: what stands around one part of an engine in its own suite: a clock that goes on
// when someone waits, and claims that say what they are told to. One thread.
#pragma once

#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/runtime.h"
#include "board/claims.h"

namespace shardahead::testing {

class WaitingClock final : public Runtime {
 public:
  Time now() noexcept override { return time; }
  void wait_for_ring(const DoorbellWord&, std::uint32_t,
                     std::chrono::nanoseconds timeout) noexcept override {
    time += std::chrono::duration_cast<Time::duration>(timeout);
  }
  void ring_unheard(DoorbellWord& word) noexcept override {
    ++unheard;
    shardahead::ring_unheard(word);
  }
  void start_thread(const std::string&, std::function<void()>) override {
    throw std::logic_error("there is nothing to do for a thread");
  }

  Time time = Time(std::chrono::hours(1));
  int unheard = 0;
};

class ToldClaims final : public Claims {
 public:
  explicit ToldClaims(std::vector<std::uint32_t> wanted = {}) : wanted_blocks(std::move(wanted)) {}

  [[nodiscard]] const std::vector<std::uint32_t>& wanted() const noexcept override {
    return wanted_blocks;
  }
  std::optional<Claim> take(std::uint64_t) override { return std::nullopt; }
  [[nodiscard]] std::vector<ByteRange> ranges(const Claim&) const override { return {}; }
  void note_resident(std::uint32_t, std::uint64_t) noexcept override {}
  [[nodiscard]] std::optional<std::uint64_t> noted_resident(std::uint32_t) const noexcept override {
    return std::nullopt;
  }
  void settle(const Claim&, Outcome, std::uint64_t) override {}
  bool settled(std::uint64_t) override { return true; }
  void recover(bool) override { ++recoveries; }
  [[nodiscard]] std::optional<Standing> standing(BlockRange blocks) const override {
    if (!unsettled) return std::nullopt;
    Standing found;
    found.unsettled = *unsettled;
    found.failed = blocks.begin <= failed_block && failed_block < blocks.end;
    return found;
  }
  [[nodiscard]] SharedFigures shared() const override { return others; }
  [[nodiscard]] std::uint64_t window_end(std::uint64_t window_bytes,
                                         const ConsumerPosition& consumer) const override {
    return sums.window_end(window_bytes, consumer);
  }
  [[nodiscard]] std::uint64_t behind(std::uint64_t position,
                                     std::uint64_t wanted_bytes) const override {
    return sums.behind(position, wanted_bytes);
  }
  [[nodiscard]] std::uint64_t inflight_bytes() const noexcept override { return inflight; }
  [[nodiscard]] Limit limit() const noexcept override { return limits; }
  bool end_consumer() override { return consumer_ended = true; }
  std::optional<ConsumerPosition> slowest_consumer(std::chrono::steady_clock::time_point) override {
    return slowest;
  }
  std::optional<ByteRange> take_dropping(std::uint64_t until_bytes) override {
    if (until_bytes <= dropped_bytes) return std::nullopt;
    const ByteRange range = {dropped_bytes, until_bytes - dropped_bytes};
    dropped_bytes = until_bytes;
    return range;
  }
  void tell_keeping(Keeping found) override { told = found; }
  [[nodiscard]] Keeping told_keeping() const noexcept override { return told; }
  std::atomic<RateLimit::PaidUntil>* rate_account(std::uint64_t) noexcept override {
    ++accounts_asked;
    return account;
  }
  DoorbellWord& doorbell() noexcept override { return bell; }

  const Plan nothing{{}, {}};
  WantedSums sums{nothing};  // everything is wanted, of whatever plan
  std::vector<std::uint32_t> wanted_blocks;
  std::optional<std::uint32_t> unsettled;
  std::uint32_t failed_block = ~std::uint32_t{0};
  SharedFigures others;
  std::uint64_t inflight = 0;
  Limit limits = Limit::unknown;
  std::optional<ConsumerPosition> slowest;
  std::uint64_t dropped_bytes = 0;
  Keeping told = Keeping::unknown;
  bool consumer_ended = false;
  int recoveries = 0;
  std::atomic<RateLimit::PaidUntil>* account = nullptr;
  int accounts_asked = 0;
  DoorbellWord bell{0};
};

}  // namespace shardahead::testing
