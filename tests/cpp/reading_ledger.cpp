#include "reading_ledger.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace shardahead::testing {

void SharedReading::all_have_opened(std::uint32_t) {
  if (exempt_ || std::exchange(all_met_, true)) return;
  cache_.begin_counting();
}

void SharedReading::opens(std::uint32_t rank, std::uint32_t file) {
  if (exempt_ || !all_met_) return;
  ledger_.broken(rank, "opens file " + std::to_string(file) + " after all had opened theirs");
}

void SharedReading::check() {
  if (exempt_ || cache_.evicted_bytes() > 0 || cache_.most_counted_loads() <= 1) return;
  ledger_.broken(0, "bytes that all ranks share are read " +
                        std::to_string(cache_.most_counted_loads()) + " times");
}

std::size_t ReadingLedger::ask(std::uint32_t file, ByteRange range, std::uint64_t wanted_bytes,
                               std::uint64_t memory_bytes) {
  asked_bytes_ += range.length;
  parts_.push_back(
      {.file = file, .range = range, .wanted_bytes = wanted_bytes, .memory_bytes = memory_bytes});
  return parts_.size() - 1;
}

void ReadingLedger::check_end() {
  for (const Part& part : parts_) {
    if (part.read_bytes >= part.wanted_bytes && part.read_bytes <= part.range.length) continue;
    ledger_.broken(rank_, std::to_string(part.read_bytes) + " bytes are read of a part of " +
                              std::to_string(part.wanted_bytes) + " in " +
                              std::to_string(part.range.length));
  }
}

void ReadingLedger::read(std::uint32_t file, ByteRange range) {
  read_bytes_ += range.length;
  const auto place = [](const Part& part) { return std::pair(part.file, part.range.offset); };
  const auto behind = std::ranges::upper_bound(parts_, std::pair(file, range.offset), {}, place);
  const auto part = behind == parts_.begin() ? parts_.end() : std::prev(behind);
  if (part == parts_.end() || part->file != file || range.end() > part->range.end()) {
    ledger_.broken(rank_, "bytes are read that no one asked for");
    return;
  }
  part->read_bytes += range.length;
  if (part->taken) ledger_.broken(rank_, "a part is read that was taken");
  if (std::exchange(part->begun, true)) return;
  check_ahead();
}

// Parts that no one waited for are begun as long as they fit, or if they are all that is ahead.
void ReadingLedger::check_ahead() {
  std::uint64_t ahead = 0;
  std::uint32_t count = 0;
  for (const Part& part : parts_) {
    if (!part.begun || part.taken || part.waited_for || part.memory_bytes == 0) continue;
    ahead += part.memory_bytes;
    ++count;
  }
  if (ahead <= ahead_bytes_ || count == 1) return;
  ledger_.broken(rank_, std::to_string(ahead) + " bytes are read ahead, not " +
                            std::to_string(ahead_bytes_) + " at most");
}

}  // namespace shardahead::testing
