#include "engine/consumer.h"

#include <atomic>
#include <exception>

#include "node/residency.h"

namespace shardahead {
namespace {

constexpr auto kRecoveryAfter = std::chrono::milliseconds(200);
// The bytes of a consumer are wanted although the prefetch is cancelled.
const std::atomic<bool> kNeverCancelled{false};

}  // namespace

bool Consumer::wait_for_blocks(const Crew& crew, BlockRange blocks, const Between& between) {
  std::optional<Patience::Wait> wait;
  for (;;) {
    const std::shared_ptr<Claims> claims = crew.claims_at_work();
    if (!claims) return false;
    const std::uint32_t seen = doorbell_seen(claims->doorbell());
    const auto standing = claims->standing(blocks);
    if (!standing) return false;
    const auto now = runtime_.now();
    {
      const MutexLock lock(mutex_);
      if (!wait) wait = patience_.begin(*standing, seen, now);
      if (!patience_.go_on(*wait, *standing, seen, now)) return standing->unsettled == 0;
    }
    // Workers look for claims of the dead only when they have nothing else to do.
    if (now - wait->unchanged_since > kRecoveryAfter) claims->recover(false);
    runtime_.wait_for_ring(claims->doorbell(), seen, kConsumerSlice);
    if (between) between();
  }
}

void Consumer::meet(const Crew& crew, std::uint32_t expected, const Between& between) {
  const std::shared_ptr<Claims> claims = crew.claims();
  if (!claims) return;
  claims->tell_opened();
  const auto began = runtime_.now();
  while (!crew.is_cancelled()) {
    const std::uint32_t seen = doorbell_seen(claims->doorbell());
    const auto meeting = claims->meeting();
    if (!meeting || !waits_for_others(*meeting, expected, runtime_.now() - began)) return;
    runtime_.wait_for_ring(claims->doorbell(), seen, kConsumerSlice);
    if (between) between();
  }
}

std::optional<bool> Consumer::is_up_to_date(std::size_t file, ByteRange range) const {
  const auto opened = files_.opened(file);
  if (!opened || range.end() > opened->status().size_bytes) return false;
  const auto bytes = up_to_date_bytes(io_, *opened, range);
  return bytes ? std::optional(*bytes == range.length) : std::nullopt;
}

FetchResult Consumer::fetch(std::size_t file, ByteRange range, bool plainly) noexcept {
  const auto open = [&] { return files_.acquire(file); };
  return fetch_for_consumer(io_, steps_, std::cref(open), files_.path(file), range, plainly);
}

FetchResult fetch_for_consumer(FileIo& io, StepTable& steps, const OpenFile& open,
                               const std::string& path, ByteRange range, bool plainly) noexcept {
  try {
    Fetcher fetcher(io, steps, Strategy::automatic, kNeverCancelled);
    const auto file = open();
    return plainly ? fetcher.read_plainly(*file, range) : fetcher.fetch_for_use(*file, range);
  } catch (const std::exception&) {
    FetchResult result;
    result.error = caught_error("fetch", path, range.offset);
    return result;
  }
}

}  // namespace shardahead
