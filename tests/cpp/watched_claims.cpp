#include "watched_claims.h"

#include <array>
#include <limits>

namespace shardahead::testing {
namespace {

// Passes everything on; those below change or watch some of it.
class ForwardingClaims : public Claims {
 public:
  explicit ForwardingClaims(std::unique_ptr<Claims> claims) : inner_(std::move(claims)) {}

  [[nodiscard]] const std::vector<std::uint32_t>& wanted() const noexcept override {
    return inner_->wanted();
  }
  std::optional<Claim> take(std::uint64_t limit_bytes) override {
    return inner_->take(limit_bytes);
  }
  [[nodiscard]] std::vector<ByteRange> ranges(const Claim& claim) const override {
    return inner_->ranges(claim);
  }
  void note_resident(std::uint32_t block, std::uint64_t bytes) noexcept override {
    inner_->note_resident(block, bytes);
  }
  [[nodiscard]] std::optional<std::uint64_t> noted_resident(
      std::uint32_t block) const noexcept override {
    return inner_->noted_resident(block);
  }
  void settle(const Claim& claim, Outcome outcome, std::uint64_t read_bytes) override {
    inner_->settle(claim, outcome, read_bytes);
  }
  bool settled(std::uint64_t limit_bytes) override { return inner_->settled(limit_bytes); }
  void recover(bool stalled) override { inner_->recover(stalled); }
  [[nodiscard]] std::optional<Standing> standing(BlockRange blocks) const override {
    return inner_->standing(blocks);
  }
  [[nodiscard]] SharedFigures shared() const override { return inner_->shared(); }
  [[nodiscard]] std::uint64_t inflight_bytes() const noexcept override {
    return inner_->inflight_bytes();
  }
  [[nodiscard]] Limit limit() const noexcept override { return inner_->limit(); }
  [[nodiscard]] std::uint64_t window_end(std::uint64_t window_bytes,
                                         const ConsumerPosition& consumer) const override {
    return inner_->window_end(window_bytes, consumer);
  }
  [[nodiscard]] std::uint64_t behind(std::uint64_t position,
                                     std::uint64_t wanted_bytes) const override {
    return inner_->behind(position, wanted_bytes);
  }
  std::atomic<RateLimit::PaidUntil>* rate_account(std::uint64_t bytes_per_s) noexcept override {
    return inner_->rate_account(bytes_per_s);
  }
  void report_consumer(const ConsumerPosition& position) override {
    inner_->report_consumer(position);
  }
  bool end_consumer() override { return inner_->end_consumer(); }
  std::optional<ConsumerPosition> slowest_consumer(Runtime::Time now) override {
    return inner_->slowest_consumer(now);
  }
  std::optional<ByteRange> take_dropping(std::uint64_t until_bytes) override {
    return inner_->take_dropping(until_bytes);
  }
  void tell_keeping(Keeping found) override { inner_->tell_keeping(found); }
  [[nodiscard]] Keeping told_keeping() const noexcept override { return inner_->told_keeping(); }
  void tell_misled() override { inner_->tell_misled(); }
  [[nodiscard]] bool told_misled() const noexcept override { return inner_->told_misled(); }
  void tell_opened() override { inner_->tell_opened(); }
  std::optional<Meeting> meeting() override { return inner_->meeting(); }
  DoorbellWord& doorbell() noexcept override { return inner_->doorbell(); }

 protected:
  [[nodiscard]] Claims& inner() const noexcept { return *inner_; }

 private:
  std::unique_ptr<Claims> inner_;
};

// Does what the canary asks for, and says nothing of it.
class BuggyClaims final : public ForwardingClaims {
 public:
  BuggyClaims(std::unique_ptr<Claims> claims, const Plan& plan, const Ledger& ledger, Bug bug)
      : ForwardingClaims(std::move(claims)), plan_(plan), ledger_(ledger), bug_(bug) {}

  std::optional<Claim> take(std::uint64_t limit_bytes) override {
    if (bug_ == Bug::beyond_window) limit_bytes = std::numeric_limits<std::uint64_t>::max();
    auto claim = inner().take(limit_bytes);
    if (claim && claim->done_before && bug_ == Bug::late_trusting) {
      inner().settle(*claim, Outcome::done, 0);
      return take(limit_bytes);
    }
    if (!claim || claim->done_before) return claim;
    if (bug_ == Bug::taken_twice && claim->block % 4 == 3) {
      inner().settle(*claim, Outcome::released, 0);
    }
    if (bug_ == Bug::done_unfetched && claim->block % 4 == 3) {
      inner().settle(*claim, Outcome::done, 0);
      return take(limit_bytes);
    }
    return claim;
  }
  [[nodiscard]] std::vector<ByteRange> ranges(const Claim& claim) const override {
    const Block& block = plan_.blocks()[claim.block];
    if (bug_ == Bug::others_forgotten) return plan_.wanted(block);
    if (bug_ == Bug::all_fetched) return {block.range};
    return inner().ranges(claim);
  }
  void settle(const Claim& claim, Outcome outcome, std::uint64_t read_bytes) override {
    if (bug_ == Bug::never_settled && claim.block % 4 == 3) return;
    if (bug_ == Bug::failure_hidden && outcome == Outcome::failed) outcome = Outcome::done;
    inner().settle(claim, outcome, read_bytes);
  }
  std::atomic<RateLimit::PaidUntil>* rate_account(std::uint64_t bytes_per_s) noexcept override {
    if (bug_ != Bug::rate_ignored) return inner().rate_account(bytes_per_s);
    unpaid_ = 0;
    return &unpaid_;
  }
  void recover(bool stalled) override {
    if (bug_ == Bug::dead_kept || (bug_ == Bug::stopped_kept && ledger_.some_are_stopped())) return;
    inner().recover(stalled || bug_ == Bug::living_robbed);
  }

 private:
  const Plan& plan_;
  const Ledger& ledger_;
  Bug bug_;
  std::atomic<RateLimit::PaidUntil> unpaid_{0};
};

class WatchedClaims final : public ForwardingClaims {
 public:
  WatchedClaims(std::unique_ptr<Claims> claims, Ledger& ledger, std::uint32_t rank)
      : ForwardingClaims(std::move(claims)), ledger_(ledger), rank_(rank) {
    ledger_.joined(rank_, inner());
  }
  WatchedClaims(const WatchedClaims&) = delete;
  WatchedClaims& operator=(const WatchedClaims&) = delete;
  ~WatchedClaims() override { ledger_.leave(rank_, inner()); }

  std::optional<Claim> take(std::uint64_t limit_bytes) override {
    ledger_.live(rank_);
    auto claim = inner().take(limit_bytes);
    if (claim) ledger_.take(rank_, *claim, limit_bytes, inner());
    return claim;
  }
  [[nodiscard]] std::vector<ByteRange> ranges(const Claim& claim) const override {
    auto ranges = inner().ranges(claim);
    ledger_.fetch(rank_, claim, ranges);
    return ranges;
  }
  void settle(const Claim& claim, Outcome outcome, std::uint64_t read_bytes) override {
    ledger_.live(rank_);
    inner().settle(claim, outcome, read_bytes);
    ledger_.settle(rank_, claim, outcome, inner());
    ledger_.read(rank_, read_bytes);
  }
  bool settled(std::uint64_t limit_bytes) override {
    ledger_.live(rank_);
    return inner().settled(limit_bytes);
  }
  [[nodiscard]] std::optional<Standing> standing(BlockRange blocks) const override {
    ledger_.live(rank_);
    return inner().standing(blocks);
  }
  std::optional<ConsumerPosition> slowest_consumer(Runtime::Time now) override {
    ledger_.live(rank_);
    return inner().slowest_consumer(now);
  }
  void recover(bool stalled) override {
    ledger_.live(rank_);
    inner().recover(stalled);
    ledger_.recover(rank_, stalled, inner());
  }
  void report_consumer(const ConsumerPosition& position) override {
    ledger_.live(rank_);
    inner().report_consumer(position);
    ledger_.consume(rank_, position);
  }
  bool end_consumer() override {
    ledger_.end_consumer(rank_);
    return inner().end_consumer();
  }
  void tell_keeping(Keeping found) override {
    ledger_.tell_keeping(rank_);
    inner().tell_keeping(found);
  }
  std::optional<ByteRange> take_dropping(std::uint64_t until_bytes) override {
    auto range = inner().take_dropping(until_bytes);
    if (range) ledger_.drop(rank_, *range);
    return range;
  }

 private:
  Ledger& ledger_;
  std::uint32_t rank_;
};

}  // namespace

const char* to_string(Bug bug) noexcept {
  constexpr std::array<const char*, kBugs> kNames = {
      "none",           "taken_twice",   "beyond_window",    "dead_kept",
      "done_unfetched", "never_settled", "failure_hidden",   "stopped_kept",
      "living_robbed",  "rate_ignored",  "others_forgotten", "all_fetched",
      "late_trusting",  "misplaced",     "error_lost",       "fetched_twice",
      "beyond_ahead",   "never_met",     "never_closed"};
  return kNames[static_cast<std::size_t>(bug)];
}

std::unique_ptr<Claims> watched(std::unique_ptr<Claims> claims, const Plan& plan, Ledger& ledger,
                                std::uint32_t rank, Bug bug) {
  if (bug != Bug::none) {
    claims = std::make_unique<BuggyClaims>(std::move(claims), plan, ledger, bug);
  }
  return std::make_unique<WatchedClaims>(std::move(claims), ledger, rank);
}

}  // namespace shardahead::testing
