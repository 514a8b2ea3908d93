#include "plan/strategy.h"

namespace shardahead {

const char* to_string(Strategy strategy) noexcept {
  switch (strategy) {
    case Strategy::populate: return "populate";
    case Strategy::fadvise: return "fadvise";
    case Strategy::readahead: return "readahead";
    case Strategy::pread: return "pread";
    case Strategy::automatic: break;
  }
  return "auto";
}

std::optional<Strategy> strategy_from(std::string_view name) noexcept {
  for (const Strategy strategy : kStrategies) {
    if (name == to_string(strategy)) return strategy;
  }
  return std::nullopt;
}

const char* to_string(StepSource source) noexcept {
  switch (source) {
    case StepSource::measured: return "measured";
    case StepSource::lowered: return "lowered";
    case StepSource::assumed: break;
  }
  return "assumed";
}

Step StepTable::get(std::uint64_t device) const {
  const MutexLock lock(mutex_);
  for (const Entry& entry : entries_) {
    if (entry.device == device) return entry.step;
  }
  return {};
}

bool StepTable::begin_measuring(std::uint64_t device) {
  const MutexLock lock(mutex_);
  Entry& found = entry(device);
  if (found.measuring || found.step.source != StepSource::assumed) return false;
  if (found.attempts == kMaxAttempts) return false;
  ++found.attempts;
  found.measuring = true;
  return true;
}

void StepTable::end_measuring(std::uint64_t device, std::optional<std::uint64_t> clip_bytes) {
  const MutexLock lock(mutex_);
  Entry& found = entry(device);
  found.measuring = false;
  if (!clip_bytes) return;
  found.step.bytes = *clip_bytes > 0 ? *clip_bytes : kDefaultStepBytes;
  found.step.source = StepSource::measured;
  found.step.advice_works = *clip_bytes > 0;
}

void StepTable::report_loss(std::uint64_t device, std::uint64_t step_bytes) {
  const MutexLock lock(mutex_);
  Entry& found = entry(device);
  // Several threads may report the same step: it is halved once.
  if (found.step.bytes != step_bytes || step_bytes <= kDefaultStepBytes) return;
  found.step.bytes = std::max(kDefaultStepBytes, align_down(step_bytes / 2, kMinStepBytes));
  found.step.source = StepSource::lowered;
}

void StepTable::end_populating(std::uint64_t device, ByteRange window, std::uint64_t came_bytes) {
  const MutexLock lock(mutex_);
  Entry& found = entry(device);
  ++found.populated;
  // A congested FUSE drops a part of the window. A kernel that does not read ahead at a fault
  // brings in next to nothing of it.
  const bool came = came_bytes >= window.length / 4;
  if (came && found.step.populate == Populate::untried) found.step.populate = Populate::works;
  // A congested FUSE may also drop all but the page that was asked for: a weak sign, an eighth of
  // one.
  found.failed_eighths += came ? 0 : (came_bytes <= kMinStepBytes ? 1 : 8);
  if (found.failed_eighths > 8 * kForgivenWindows + found.populated) {
    found.step.populate = Populate::fails;
  }
}

void StepTable::refuse_populate(std::uint64_t device) {
  const MutexLock lock(mutex_);
  entry(device).step.populate = Populate::fails;
}

Step StepTable::first() const {
  const MutexLock lock(mutex_);
  return entries_.empty() ? Step{} : entries_.front().step;
}

StepTable::Entry& StepTable::entry(std::uint64_t device) {
  for (Entry& entry : entries_) {
    if (entry.device == device) return entry;
  }
  entries_.emplace_back().device = device;
  return entries_.back();
}

}  // namespace shardahead
