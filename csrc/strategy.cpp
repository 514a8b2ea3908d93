#include "strategy.h"

namespace shardahead {

const char* to_string(Strategy strategy) noexcept {
  switch (strategy) {
    case Strategy::fadvise: return "fadvise";
    case Strategy::readahead: return "readahead";
    case Strategy::pread: return "pread";
    case Strategy::automatic: break;
  }
  return "auto";
}

std::optional<Strategy> strategy_from(std::string_view name) noexcept {
  for (const Strategy strategy :
       {Strategy::automatic, Strategy::fadvise, Strategy::readahead, Strategy::pread}) {
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
  const std::lock_guard lock(mutex_);
  for (const Entry& entry : entries_) {
    if (entry.device == device) return entry.step;
  }
  return {};
}

bool StepTable::begin_measuring(std::uint64_t device) {
  const std::lock_guard lock(mutex_);
  Entry& found = entry(device);
  if (found.measuring || found.step.source != StepSource::assumed) return false;
  if (found.attempts == kMaxAttempts) return false;
  ++found.attempts;
  found.measuring = true;
  return true;
}

void StepTable::end_measuring(std::uint64_t device, std::optional<std::uint64_t> clip_bytes) {
  const std::lock_guard lock(mutex_);
  Entry& found = entry(device);
  found.measuring = false;
  if (!clip_bytes) return;
  found.step = {*clip_bytes > 0 ? *clip_bytes : kDefaultStepBytes, StepSource::measured,
                *clip_bytes > 0};
}

void StepTable::report_loss(std::uint64_t device, std::uint64_t step_bytes) {
  const std::lock_guard lock(mutex_);
  Entry& found = entry(device);
  // Several threads may report the same step: it is halved once.
  if (found.step.bytes != step_bytes || step_bytes <= kDefaultStepBytes) return;
  found.step.bytes = std::max(kDefaultStepBytes, align_down(step_bytes / 2, kMinStepBytes));
  found.step.source = StepSource::lowered;
}

Step StepTable::first() const {
  const std::lock_guard lock(mutex_);
  return entries_.empty() ? Step{} : entries_.front().step;
}

StepTable::Entry& StepTable::entry(std::uint64_t device) {
  for (Entry& entry : entries_) {
    if (entry.device == device) return entry;
  }
  entries_.push_back({device, {}, false, 0});
  return entries_.back();
}

}  // namespace shardahead
