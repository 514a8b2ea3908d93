#include "engine/fetch.h"

#include <cerrno>

#include "node/residency.h"

namespace shardahead {
namespace {

// Small enough to stay in the processor's cache: whatever its size, the kernel reads ahead in
// windows of read_ahead_kb, so a larger buffer gains nothing.
constexpr std::uint64_t kBufferBytes = 256 * kKiB;

void record(FetchResult& result, IoError error) {
  if (!result.error) result.error = std::move(error);
}

// The first part of the range that one call may bring in. The kernel reads whole huge pages, and
// none may reach beyond the range, unless the file ends there.
ByteRange next_piece(const File& file, ByteRange range) {
  const std::uint64_t boundary = align_up(range.offset, kHugePageBytes);
  if (boundary != range.offset) {
    return {range.offset, std::min(boundary - range.offset, range.length)};
  }
  if (range.length >= kPopulateBytes) return {range.offset, kPopulateBytes};
  if (range.end() == file.status().size_bytes) return range;
  return {range.offset, std::min(range.length, kHugePageBytes)};
}

}  // namespace

Fetcher::Fetcher(FileIo& io, StepTable& steps, Strategy strategy,
                 const std::atomic<bool>& cancelled)
    : io_(io), steps_(steps), strategy_(strategy), cancelled_(cancelled) {}

FetchResult Fetcher::fetch(const File& file, ByteRange range) {
  beyond_ = Beyond::wanted;
  Fetch fetch = look_at(file, range);
  start(file, fetch);
  return finish(file, std::move(fetch), Untouched::trusted);
}

std::vector<FetchResult> Fetcher::fetch(const File& file, const std::vector<ByteRange>& ranges,
                                        Beyond beyond, const std::function<void()>& before_reads) {
  beyond_ = beyond;
  std::vector<Fetch> fetches;
  fetches.reserve(ranges.size());
  // First all are looked at: what is on its way looks as if it had been there.
  bool missing = false;
  for (const ByteRange& range : ranges) {
    fetches.push_back(look_at(file, range));
    missing |= fetches.back().resident_bytes != fetches.back().range.length;
  }
  if (missing && before_reads) before_reads();
  for (Fetch& fetch : fetches) start(file, fetch);
  std::vector<FetchResult> results;
  results.reserve(ranges.size());
  for (Fetch& fetch : fetches) {
    results.push_back(finish(file, std::move(fetch), Untouched::trusted));
    if (results.back().cancelled) break;
  }
  return results;
}

Fetcher::Fetch Fetcher::look_at(const File& file, ByteRange range) {
  const std::uint64_t size_bytes = file.status().size_bytes;
  range = grow_to_units(intersect(range, {0, size_bytes}), page_bytes(), size_bytes);
  if (range.empty()) return {range, std::uint64_t{0}};
  return {range, resident(file, range)};
}

void Fetcher::start(const File& file, Fetch& fetch) {
  const auto& [range, resident_bytes, step_bytes, result] = fetch;
  if (resident_bytes == range.length || strategy_ == Strategy::pread) return;
  const bool asked_for = measure_step(file, range);
  const Step step = steps_.get(file.status().device);
  if (!step.advice_works && strategy_ == Strategy::automatic) return;
  // Once faults are seen to work, a block of which nothing is there is not looked at window by
  // window.
  const bool absent =
      resident_bytes == std::uint64_t{0} && !asked_for && step.populate == Populate::works;
  fetch.step_bytes = step.bytes;
  // A window that came by one fault has a mark in its first page: whoever reads that later has the
  // kernel read on behind all that is there, by as much as it reads ahead on this mount.
  const bool reads_on = step.source == StepSource::assumed || step.bytes > kDefaultStepBytes;
  if (beyond_ == Beyond::unwanted && reads_on && strategy_ == Strategy::automatic) {
    advise(file, range, step.bytes, fetch.result);
  } else {
    start_reads(file, range, step.bytes, absent, fetch.result);
  }
}

FetchResult Fetcher::finish(const File& file, Fetch fetch, Untouched untouched) {
  const ByteRange range = fetch.range;
  const auto resident_bytes = fetch.resident_bytes;
  FetchResult result = std::move(fetch.result);
  if (range.empty()) return {};
  if (resident_bytes == range.length) {
    // "Resident" includes pages that are still being read: the touch waits for the last of them.
    touch(file, range.end() - 1, result);
  } else if (fetch.step_bytes == 0) {
    read(file, range, result);
  } else if (!result.cancelled && !result.error) {
    wait_for_reads(file, range, fetch.step_bytes, result);
  }
  if (untouched == Untouched::looked_at && !result.error && !result.cancelled) {
    wait_for_all(file, range, steps_.get(file.status().device).bytes, result);
  }
  std::uint64_t arrived = 0;  // before the error
  if (result.error && !stop()) {
    // With pread, from the start: so all is read that can be, and the error names its place.
    FetchResult retried;
    retried.lost_bytes = result.lost_bytes;
    retried.advice_dropped = result.advice_dropped;
    read(file, range, retried);
    result = std::move(retried);
    if (result.error) arrived = result.error->offset - range.offset;
  }
  std::uint64_t before = resident_bytes.value_or(0);
  std::uint64_t after = range.length;
  if (result.error) {
    // What cachestat counted may be pages whose read failed, which stay in the page cache.
    if (before == range.length) before = 0;
    const auto usable = up_to_date_bytes(io_, file, range);
    const std::uint64_t existing = usable ? resident(file, range).value_or(0) : 0;
    before -= std::min(before, existing - std::min(existing, usable.value_or(0)));
    after = std::max(arrived, before);
    result.failed_bytes = range.length - after;
  } else if (result.cancelled) {
    after = std::max(resident(file, range).value_or(0), before);
  }
  result.residency_known = resident_bytes.has_value();
  result.resident_bytes = before;
  result.read_bytes = after - before;
  result.lost_bytes = std::min(result.lost_bytes, result.read_bytes);
  return result;
}

FetchResult Fetcher::fetch_for_use(const File& file, ByteRange range) {
  constexpr std::uint64_t kPieceBytes = 8 * kMiB;
  const ByteRange whole = {0, file.status().size_bytes};
  beyond_ = Beyond::wanted;
  FetchResult total;
  for_each_step(range, kPieceBytes, [&](ByteRange piece) {
    const Step step = steps_.get(file.status().device);
    const ByteRange next = intersect({piece.end(), kPieceBytes}, intersect(range, whole));
    if (strategy_ != Strategy::pread && step.advice_works && resident(file, next) != next.length) {
      FetchResult ignored;  // advice only: what is wrong with the next piece is its own affair
      advise(file, next, step.bytes, ignored);
    }
    Fetch fetch = look_at(file, piece);
    start(file, fetch);
    FetchResult result = finish(file, std::move(fetch), Untouched::looked_at);
    total.resident_bytes += result.resident_bytes;
    total.read_bytes += result.read_bytes;
    total.lost_bytes += result.lost_bytes;
    total.failed_bytes += result.failed_bytes;
    total.residency_known &= result.residency_known;
    total.cancelled = result.cancelled;
    total.error = std::move(result.error);
    return !total.cancelled && !total.error;
  });
  return total;
}

FetchResult Fetcher::read_plainly(const File& file, ByteRange range) {
  FetchResult result;
  beyond_ = Beyond::wanted;
  read(file, intersect(range, {0, file.status().size_bytes}), result);
  return result;
}

void Fetcher::wait_for_reads(const File& file, ByteRange range, std::uint64_t step_bytes,
                             FetchResult& result) {
  // The last step first: when it has come the others, which were queued before it, mostly have too.
  // So the thread is woken once instead of once a step (0.02 s of processor time per GiB, not
  // 0.10).
  const bool last_arrived = touch(file, range.end() - 1, result);
  const bool arrived = last_arrived && for_each_step(range, step_bytes, [&](ByteRange step) {
                         if (stop()) result.cancelled = true;
                         return !result.cancelled && touch(file, step.end() - 1, result);
                       });
  if (!arrived || result.faulted_bytes == range.length) return;
  const auto resident_bytes = resident(file, range);
  const bool gaps = resident_bytes ? *resident_bytes < range.length : result.advice_refused;
  if (gaps) fill_gaps(file, range, step_bytes, result);
}

bool Fetcher::start_reads(const File& file, ByteRange range, std::uint64_t step_bytes, bool absent,
                          FetchResult& result) {
  if (strategy_ != Strategy::automatic && strategy_ != Strategy::populate) {
    return advise(file, range, step_bytes, result);
  }
  for (std::uint64_t at = range.offset; at < range.end();) {
    const ByteRange piece = next_piece(file, {at, range.end() - at});
    const bool whole = piece.length >= kHugePageBytes || piece.end() == file.status().size_bytes;
    const bool window = at % kHugePageBytes == 0 && whole && piece.length >= 2 * step_bytes;
    if (window && bring_in_window(file, piece, absent, result)) {
      result.faulted_bytes += piece.length;
    } else if (!advise(file, piece, step_bytes, result)) {
      return false;
    }
    at = piece.end();
  }
  return true;
}

// False where something of the window has to be advised, because the faults do not bring it in.
bool Fetcher::bring_in_window(const File& file, ByteRange window, bool absent,
                              FetchResult& result) {
  const std::uint64_t device = file.status().device;
  // A fault on a page that exists starts no read.
  if (!absent && existing(file, window) != std::uint64_t{0}) return false;
  if (!fault_in_once(file, window)) return false;
  const std::uint64_t came_bytes = existing(file, window).value_or(0);
  steps_.end_populating(device, window, came_bytes);
  if (came_bytes == window.length) return true;
  if (came_bytes == 0 || steps_.get(device).populate != Populate::works) return false;
  // FUSE, when congested, drops the end. Once the beginning is here, there is room for it.
  const ByteRange rest = {window.offset + came_bytes, window.length - came_bytes};
  return existing(file, rest) == std::uint64_t{0} && touch(file, rest.offset - 1, result) &&
         fault_in_once(file, rest) && existing(file, rest) == rest.length;
}

bool Fetcher::fault_in_once(const File& file, ByteRange window) {
  const std::uint64_t device = file.status().device;
  if (stop() || steps_.get(device).populate == Populate::fails) return false;
  const int descriptor = file.fault_descriptor();
  const int faulted = descriptor < 0 ? -EFAULT : io_.fault_in_huge_pages(descriptor, window);
  // What cannot be read (-EFAULT) is a matter of this page or file, found again by its touch.
  const bool passing = faulted == -EFAULT || faulted == -ENOMEM || faulted == -EAGAIN;
  if (faulted < 0 && !passing) steps_.refuse_populate(device);
  return faulted >= 0;
}

bool Fetcher::advise(const File& file, ByteRange range, std::uint64_t step_bytes,
                     FetchResult& result) {
  const bool asked_for = strategy_ == Strategy::fadvise || strategy_ == Strategy::readahead;
  return for_each_step(range, step_bytes, [&](ByteRange step) {
    int errno_value = 0;
    if (stop()) {
      result.cancelled = true;
    } else if (!advise_once(file, step, errno_value)) {
      // Unless it was asked for this is no error: the touches and fill_gaps read all the same.
      result.advice_refused = true;
      if (asked_for) record(result, file.error(errno_value, to_string(strategy_), step.offset));
    }
    return !result.cancelled && !result.error;
  });
}

bool Fetcher::advise_once(const File& file, ByteRange range, int& errno_value) {
  const int result = strategy_ == Strategy::readahead
                         ? io_.readahead(file.descriptor(), range)
                         : io_.fadvise_willneed(file.descriptor(), range);
  errno_value = result < 0 ? -result : 0;
  return result >= 0;
}

// One byte is enough: the kernel waits for its page, and brings up the error of its request.
bool Fetcher::touch(const File& file, std::uint64_t offset, FetchResult& result) {
  std::byte byte{};
  const std::int64_t count = io_.pread(descriptor_for_reads(file), &byte, {offset, 1});
  if (count < 0) {
    record(result, file.error(static_cast<int>(-count), "pread", offset));
  } else if (count == 0) {
    record(result, file.became_shorter(offset));
  }
  return count > 0;
}

void Fetcher::fill_gaps(const File& file, ByteRange range, std::uint64_t step_bytes,
                        FetchResult& result) {
  std::uint64_t lost_bytes = 0;
  for_each_step(range, step_bytes, [&](ByteRange step) {
    const std::uint64_t missing = step.length - resident(file, step).value_or(0);
    lost_bytes += missing;
    return missing == 0 || read(file, step, result);
  });
  result.lost_bytes += lost_bytes;
  // A page or two may have been evicted meanwhile; a quarter of the range was not.
  if (lost_bytes > range.length / 4) {
    steps_.report_loss(file.status().device, step_bytes);
    result.advice_dropped = true;
  }
}

// A page of a request that failed stays in the page cache, and cachestat counts it. A touch heals
// the page that it touches and no other.
void Fetcher::wait_for_all(const File& file, ByteRange range, std::uint64_t step_bytes,
                           FetchResult& result) {
  const auto is_there = [&](ByteRange part) {
    return up_to_date_bytes(io_, file, part).value_or(part.length) == part.length;
  };
  if (is_there(range)) return;
  for_each_step(range, step_bytes,
                [&](ByteRange step) { return is_there(step) || read(file, step, result); });
}

// One of which the kernel reads no further than it is asked for, where what lies behind is
// unwanted.
int Fetcher::descriptor_for_reads(const File& file) const {
  const int exact = beyond_ == Beyond::unwanted ? file.fault_descriptor() : -1;
  return exact >= 0 ? exact : file.descriptor();
}

bool Fetcher::read(const File& file, ByteRange range, FetchResult& result) {
  if (buffer_.empty()) buffer_.resize(kBufferBytes);
  const int descriptor = descriptor_for_reads(file);
  return for_each_step(range, kBufferBytes, [&](ByteRange piece) {
    if (stop()) {
      result.cancelled = true;
      return false;
    }
    std::uint64_t done = 0;
    const int error = pread_full(io_, descriptor, buffer_.data(), piece, done);
    const std::uint64_t at = piece.offset + done;
    if (error != 0) {
      record(result, file.error(-error, "pread", at));
    } else if (done < piece.length) {
      record(result, file.became_shorter(at));
    }
    return !result.error;
  });
}

// One advise call over a range of which nothing is resident; what exists then is the clip. Others
// may be reading the same pages, so the answer counts only if it is an unbroken start of the range.
// Whether it measured, so that some of the range may be on its way.
bool Fetcher::measure_step(const File& file, ByteRange range) {
  const std::uint64_t device = file.status().device;
  if (range.length < 2 * kDefaultStepBytes || !steps_.begin_measuring(device)) return false;
  std::optional<std::uint64_t> clip_bytes;
  const ByteRange half = {range.offset + align_down(range.length / 2, page_bytes()),
                          range.length - align_down(range.length / 2, page_bytes())};
  for (const ByteRange probe : {range, half}) {
    if (existing(file, probe) != std::uint64_t{0}) continue;
    int errno_value = 0;
    if (!advise_once(file, probe, errno_value)) {
      clip_bytes = 0;
      break;
    }
    const auto appeared = existing(file, probe);
    if (!appeared || existing(file, {probe.offset, *appeared}) != appeared) break;
    clip_bytes = align_down(*appeared, page_bytes());  // the file may end within a page
    break;
  }
  steps_.end_measuring(device, clip_bytes);
  return true;
}

std::optional<std::uint64_t> Fetcher::resident(const File& file, ByteRange range) {
  return residency(io_, file, range).resident_bytes;
}

// mincore does not see pages that are still being read: without cachestat this is not known.
std::optional<std::uint64_t> Fetcher::existing(const File& file, ByteRange range) {
  const Residency found = residency(io_, file, range);
  return found.source == ResidencySource::cachestat ? found.resident_bytes : std::nullopt;
}

}  // namespace shardahead
