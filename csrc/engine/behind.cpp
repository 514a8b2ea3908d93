#include "engine/behind.h"

#include <algorithm>

namespace shardahead {
namespace {

// A fault maps the pages around it as well, 16 of them, aligned.
constexpr std::uint64_t kFaultAroundBytes = 64 * kKiB;

}  // namespace

void Behind::give_up_released(std::uint64_t released_bytes) {
  std::uint64_t from = 0;
  {
    const MutexLock lock(mutex_);
    if (released_bytes <= given_up_bytes_) return;
    from = given_up_bytes_ - std::min(given_up_bytes_, kFaultAroundBytes);
    given_up_bytes_ = released_bytes;
  }
  give_up_pages({from, released_bytes - from});
}

std::uint64_t Behind::drop(Claims& claims, std::uint64_t keep_bytes, Runtime::Time now) {
  const auto slowest = claims.slowest_consumer(now);
  if (!slowest) return 0;
  const std::uint64_t until = claims.behind(slowest->released_bytes, keep_bytes);
  std::uint64_t dropped = 0;
  if (const auto range = claims.take_dropping(until)) dropped += drop_pages(*range);
  for (const ByteRange& late : consumption_->take_late()) {
    give_up_pages(late);
    if (late.end() <= until) dropped += drop_pages(late);
  }
  return dropped;
}

// Only what no one holds: in a private mapping written pages would return to the file's contents.
void Behind::give_up_pages(ByteRange positions) {
  for (const ByteRange& part : consumption_->not_held(positions)) {
    for (const auto& [file, range] : plan_.files_under(part)) {
      if (const auto mapped = mappings_.find(file)) mapped->give_up(range);
    }
  }
}

// Pages that are mapped by anyone stay, and so do those that lie in the range only in part: so it
// begins where a huge page does.
std::uint64_t Behind::drop_pages(ByteRange positions) {
  std::uint64_t bytes = 0;
  for (const auto& [file, range] : plan_.files_under(positions)) {
    try {
      const auto opened = files_.acquire(file);
      const std::uint64_t begin = align_down(range.offset, kHugePageBytes);
      if (io_.fadvise_dontneed(opened->descriptor(), {begin, range.end() - begin}) == 0) {
        bytes += range.length;
      }
    } catch (const IoException&) {
      continue;  // gone: nothing to drop
    }
  }
  return bytes;
}

}  // namespace shardahead
