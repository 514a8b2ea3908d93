#include "engine/trial.h"

#include <utility>

namespace shardahead {
namespace {

// A trial that sits in a read for so long holds up no one else.
constexpr auto kTrialPatience = std::chrono::seconds(1);

Keeping told_to(const Claims* claims) {
  return claims != nullptr ? claims->told_keeping() : Keeping::unknown;
}

}  // namespace

bool Trial::try_mount(const File& file, const std::vector<ByteRange>& ranges, Claims* claims,
                      std::uint64_t& tried_bytes, const std::function<void()>& before_reads) {
  const std::uint64_t device = file.status().device;
  {
    MutexLock lock(mutex_);
    const auto [trial, is_first] = found_.try_emplace(device);
    const auto deadline = runtime_.now() + kTrialPatience;
    while (!is_first && !trial->second && !keeps_nothing(told_to(claims)) &&
           !cancelled_.load(std::memory_order_relaxed) && runtime_.now() < deadline) {
      wait_for_bell(lock);
    }
    // One that hangs has not told what others of the node may have found meanwhile.
    if (!is_first) return !keeps_nothing(trial->second.value_or(told_to(claims)));
  }
  if (before_reads) before_reads();
  const KeepingCheck found = try_page_of(file, ranges, claims);
  tried_bytes = found.read_bytes;
  const MutexLock lock(mutex_);
  found_[device] = found.keeping;
  ring(bell_);
  return !keeps_nothing(found.keeping);
}

// Others are asked first: what these have read by now makes the mount look as if it kept pages.
KeepingCheck Trial::try_page_of(const File& file, const std::vector<ByteRange>& ranges,
                                Claims* claims) {
  const auto told = [claims] { return told_to(claims); };
  if (const Keeping known = told(); keeps_nothing(known)) return {known, 0};
  const KeepingCheck found = check_keeping(io_, file, ranges, told);
  if (claims != nullptr && keeps_nothing(found.keeping)) claims->tell_keeping(found.keeping);
  return found;
}

// That the lock is one of the mutex is more than the analysis can see.
void Trial::wait_for_bell(MutexLock& lock) NO_THREAD_SAFETY_ANALYSIS {
  const std::uint32_t seen = doorbell_seen(bell_);
  lock.unlock();
  runtime_.wait_for_ring(bell_, seen, kConsumerSlice);
  lock.lock();
}

std::optional<Keeping> Trial::verdict(const Claims* claims) const {
  const Keeping told_now = told_to(claims);
  if (keeps_nothing(told_now)) return told_now;
  const MutexLock lock(mutex_);
  if (keeps_nothing(told_)) return told_;
  std::optional<Keeping> worst = failed_alone_ ? std::optional(Keeping::unknown) : std::nullopt;
  for (const auto& [device, found] : found_) {
    if (!found) continue;
    if (keeps_nothing(*found)) return found;
    if (!worst || *found == Keeping::unknown) worst = found;
  }
  return worst;
}

bool Trial::is_in_vain(const Claims* claims) const {
  return keeps_nothing(verdict(claims).value_or(Keeping::unknown));
}

void Trial::close(const Claims& claims) noexcept {
  const Keeping told = claims.told_keeping();
  if (!keeps_nothing(told)) return;
  const MutexLock lock(mutex_);
  told_ = told;
}

bool Trial::has_begun() const {
  const MutexLock lock(mutex_);
  return !found_.empty();
}

bool Trial::begin_alone() noexcept {
  const MutexLock lock(mutex_);
  return !std::exchange(tried_alone_, true);
}

void Trial::fail_alone() noexcept {
  const MutexLock lock(mutex_);
  failed_alone_ = true;
  ring(bell_);
}

}  // namespace shardahead
