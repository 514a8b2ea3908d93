#include "simulated_node.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "simulated_content.h"

namespace shardahead::testing {
namespace {

using std::chrono::microseconds;
using std::chrono::nanoseconds;

constexpr auto kStall = std::chrono::seconds(30);

}  // namespace

PageCache::PageCache(const SimulatedNodeOptions& options, std::vector<std::uint64_t> sizes_bytes)
    : options_(options), sizes_bytes_(std::move(sizes_bytes)) {
  std::uint32_t count = 0;
  for (const std::uint64_t size_bytes : sizes_bytes_) {
    first_folios_.push_back(count);
    count += static_cast<std::uint32_t>(align_up(size_bytes, kFolioBytes) / kFolioBytes);
  }
  first_folios_.push_back(count);
  folios_.resize(count);
}

PageCache::Folios PageCache::folios_of(std::uint32_t file, ByteRange range) const {
  range = intersect(range, {0, sizes_bytes_[file]});
  const std::uint32_t first = first_folios_[file];
  if (range.empty()) return {first, first};
  return {first + static_cast<std::uint32_t>(range.offset / kFolioBytes),
          first + static_cast<std::uint32_t>((range.end() - 1) / kFolioBytes) + 1};
}

PageCache::Time PageCache::load(std::uint32_t file, ByteRange range, Time now) {
  const auto [begin, end] = folios_of(file, range);
  Time ready = now;
  bool loaded = false;
  for (std::uint32_t index = begin; index < end; ++index) {
    Folio& folio = folios_[index];
    if (!folio.present) {
      const std::uint64_t offset = (index - first_folios_[file]) * kFolioBytes;
      folio.ready = occupy_link(file, offset, kFolioBytes, now);
      if (!counted_.empty()) ++counted_[index];
      first_loads_ += folio.loaded_before ? 0 : 1;
      ++loads_;
      ++present_;
      folio.present = folio.loaded_before = loaded = true;
      link_newest(index);
    }
    ready = std::max(ready, folio.ready);
  }
  if (loaded) make_room(now);
  return ready;
}

// Returns when they are there.
PageCache::Time PageCache::occupy_link(std::uint32_t file, std::uint64_t offset,
                                       std::uint64_t bytes, Time now) {
  const bool slow =
      file == options_.slow_file && !intersect(options_.slow_range, {offset, bytes}).empty();
  const std::uint64_t factor = slow ? options_.slow_factor : 1;
  link_free_ = std::max(link_free_, now) +
               nanoseconds(factor * bytes * 1'000'000'000 / options_.bytes_per_second);
  return link_free_ + options_.round_trip;
}

PageCache::Time PageCache::load_directly(std::uint32_t file, ByteRange range, Time now) {
  return occupy_link(file, range.offset, range.length, now);
}

void PageCache::empty(std::uint32_t file) {
  for (std::uint32_t index = first_folios_[file]; index < first_folios_[file + 1]; ++index) {
    if (folios_[index].present) remove(index);
  }
}

std::uint32_t PageCache::most_counted_loads() const {
  return counted_.empty() ? 0 : *std::ranges::max_element(counted_);
}

void PageCache::use(std::uint32_t file, ByteRange range) {
  const auto [begin, end] = folios_of(file, range);
  for (std::uint32_t index = begin; index < end; ++index) {
    if (!folios_[index].present) continue;
    unlink(index);
    link_newest(index);
  }
}

void PageCache::map(std::uint32_t file, ByteRange range, int change) {
  const auto [begin, end] = folios_of(file, range);
  for (std::uint32_t index = begin; index < end; ++index) {
    folios_[index].mapped = static_cast<std::uint16_t>(folios_[index].mapped + change);
  }
}

void PageCache::drop(std::uint32_t file, ByteRange range, Time now) {
  const auto [begin, end] = folios_of(file, range);
  for (std::uint32_t index = begin; index < end; ++index) {
    const std::uint64_t offset = (index - first_folios_[file]) * kFolioBytes;
    const std::uint64_t length = std::min(kFolioBytes, sizes_bytes_[file] - offset);
    const bool whole = intersect(range, {offset, length}).length == length;
    const Folio& folio = folios_[index];
    if (whole && folio.present && folio.mapped == 0 && folio.ready <= now) remove(index);
  }
}

template <typename Counts>
std::int64_t PageCache::count_pages(std::uint32_t file, ByteRange range, Counts counts) const {
  const auto [begin, end] = folios_of(file, range);
  range = intersect(range, {0, sizes_bytes_[file]});
  std::uint64_t pages = 0;
  for (std::uint32_t index = begin; index < end; ++index) {
    if (!counts(folios_[index])) continue;
    const std::uint64_t offset = (index - first_folios_[file]) * kFolioBytes;
    const ByteRange part = intersect(range, {offset, kFolioBytes});
    pages +=
        (align_up(part.end(), page_bytes()) - align_down(part.offset, page_bytes())) / page_bytes();
  }
  return static_cast<std::int64_t>(pages);
}

std::int64_t PageCache::existing_pages(std::uint32_t file, ByteRange range) const {
  return count_pages(file, range, [](const Folio& folio) { return folio.present; });
}

std::int64_t PageCache::arrived_pages(std::uint32_t file, ByteRange range, Time now) const {
  return count_pages(file, range,
                     [&](const Folio& folio) { return folio.present && folio.ready <= now; });
}

bool PageCache::has_come(std::uint32_t file, ByteRange range) const {
  const auto [begin, end] = folios_of(file, range);
  return std::all_of(folios_.begin() + begin, folios_.begin() + end,
                     [](const Folio& folio) { return folio.loaded_before; });
}

std::optional<ByteRange> PageCache::first_come(std::uint32_t file, ByteRange range) const {
  const auto [begin, end] = folios_of(file, range);
  for (std::uint32_t index = begin; index < end; ++index) {
    if (!folios_[index].loaded_before) continue;
    return ByteRange{(index - first_folios_[file]) * kFolioBytes, kFolioBytes};
  }
  return std::nullopt;
}

bool PageCache::is_there(std::uint32_t file, ByteRange range) const {
  const auto [begin, end] = folios_of(file, range);
  return std::all_of(folios_.begin() + begin, folios_.begin() + end,
                     [](const Folio& folio) { return folio.present; });
}

void PageCache::link_newest(std::uint32_t folio) {
  folios_[folio].older = newest_;
  folios_[folio].newer = kNone;
  (newest_ == kNone ? oldest_ : folios_[newest_].newer) = folio;
  newest_ = folio;
}

void PageCache::unlink(std::uint32_t folio) {
  const auto [older, newer] = std::pair(folios_[folio].older, folios_[folio].newer);
  (older == kNone ? oldest_ : folios_[older].newer) = newer;
  (newer == kNone ? newest_ : folios_[newer].older) = older;
}

void PageCache::remove(std::uint32_t folio) {
  unlink(folio);
  folios_[folio].present = false;
  --present_;
}

// Mapped folios only when there is nothing else; what is being read stays.
void PageCache::make_room(Time now) {
  const std::uint64_t most = options_.memory_bytes / kFolioBytes;
  if (most == 0) return;
  for (const bool mapped_too : {false, true}) {
    for (std::uint32_t folio = oldest_; folio != kNone && present_ > most;) {
      const std::uint32_t newer = folios_[folio].newer;
      if (folios_[folio].ready <= now && (mapped_too || folios_[folio].mapped == 0)) {
        remove(folio);
        ++evictions_;
      }
      folio = newer;
    }
  }
}

void RankFileIo::take_time() {
  ++calls_;
  const bool stalls = stalls_.erase(calls_) > 0;
  threads_.sleep(stalls ? nanoseconds(kStall) : nanoseconds(1000 + random_.below(4000)));
}

bool RankFileIo::wait_for(std::uint32_t file, ByteRange range, ByteRange window) {
  cache_.load(file, window, threads_.now());
  const auto ready = cache_.load(file, range, threads_.now());
  if (ready > threads_.now()) threads_.sleep(ready - threads_.now());
  if (threads_.burying()) return false;
  cache_.use(file, range);
  return true;
}

bool RankFileIo::begin(const char* operation, int descriptor, ByteRange range,
                       std::uint32_t& file) {
  take_time();
  const auto found = open_.find(descriptor);
  if (threads_.burying() || found == open_.end()) return false;
  file = found->second;
  trace_.add(threads_.now(), rank_, operation, file, range.offset, range.length);
  return true;
}

int RankFileIo::status(const std::string& path, FileStatus& status) noexcept {
  std::uint32_t file = 0;
  while (file < cache_.files() && this->path(file) != path) ++file;
  if (file == cache_.files()) return -ENOENT;
  status = {.size_bytes = cache_.size_bytes(file),
            .device = 1,
            .inode = file + 1,
            .mode = S_IFREG | 0644,
            .owned_or_writable = cache_.options().owner};
  return 0;
}

int RankFileIo::status(int descriptor, FileStatus& status) noexcept {
  const auto found = open_.find(descriptor);
  return found == open_.end() ? -EBADF : this->status(path(found->second), status);
}

// Takes no time, and nor does close(): std::call_once may stand around it, which must not be met
// by another virtual thread of the same real one.
int RankFileIo::open(const std::string& path) noexcept {
  FileStatus status;
  const int result = this->status(path, status);
  if (result < 0) return result;
  const auto file = static_cast<std::uint32_t>(status.inode - 1);
  if (opens_) opens_(file);
  if (cache_.options().mount == SimulatedMount::emptied_by_open) cache_.empty(file);
  open_[next_descriptor_] = file;
  return next_descriptor_++;
}

int RankFileIo::close(int descriptor) noexcept { return open_.erase(descriptor) > 0 ? 0 : -EBADF; }

std::int64_t RankFileIo::pread(int descriptor, std::byte* buffer, ByteRange range) noexcept {
  std::uint32_t file = 0;
  if (!begin("pread", descriptor, range, file)) return refusal();
  range = intersect(range, {0, cache_.size_bytes(file)});
  if (range.empty()) return 0;
  if (cache_.options().mount == SimulatedMount::uncached) {
    direct_bytes_ += range.length;
    threads_.sleep(cache_.load_directly(file, range, threads_.now()) - threads_.now());
    if (threads_.burying()) return -EIO;
  } else {
    ByteRange window = range;
    if (!cache_.is_there(file, range) && !without_readahead_.contains(descriptor)) {
      window.length = std::max(window.length, cache_.options().read_window_bytes);
    }
    if (!wait_for(file, range, window)) return -EIO;
  }
  if (opens_) fill_with_content(file, range, buffer);
  return static_cast<std::int64_t>(range.length);
}

int RankFileIo::advise(const char* operation, int descriptor, ByteRange range) {
  std::uint32_t file = 0;
  if (!begin(operation, descriptor, range, file)) return refusal();
  if (random_.chance(cache_.options().drop_advice_percent)) return 0;
  range.length = std::min(range.length, cache_.options().advise_clip_bytes);
  cache_.load(file, range, threads_.now());
  return 0;
}

int RankFileIo::fadvise_willneed(int descriptor, ByteRange range) noexcept {
  return advise("fadvise_willneed", descriptor, range);
}

int RankFileIo::readahead(int descriptor, ByteRange range) noexcept {
  return advise("readahead", descriptor, range);
}

// Takes no time, as open().
int RankFileIo::fadvise_random(int descriptor) noexcept {
  without_readahead_.insert(descriptor);
  return 0;
}

int RankFileIo::fadvise_normal(int descriptor) noexcept {
  without_readahead_.erase(descriptor);
  return 0;
}

int RankFileIo::fault_in_huge_pages(int descriptor, ByteRange range) noexcept {
  std::uint32_t file = 0;
  if (!begin("fault_in_huge_pages", descriptor, range, file)) return refusal();
  if (cache_.options().populate_bytes == 0) return -EINVAL;
  const std::uint64_t most = range.length <= kHugePageBytes ? kHugePageBytes : kPopulateBytes;
  const ByteRange window = {align_down(range.offset, kHugePageBytes),
                            std::min(most, cache_.options().populate_bytes)};
  cache_.load(file, window, threads_.now());
  const auto ready = cache_.load(file, {range.offset, 1}, threads_.now());
  if (ready > threads_.now()) threads_.sleep(ready - threads_.now());
  return threads_.burying() ? -EIO : 0;
}

int RankFileIo::fadvise_dontneed(int descriptor, ByteRange range) noexcept {
  std::uint32_t file = 0;
  if (!begin("fadvise_dontneed", descriptor, range, file)) return refusal();
  cache_.drop(file, range, threads_.now());
  return 0;
}

int RankFileIo::fdatasync(int descriptor) noexcept {
  std::uint32_t file = 0;
  return begin("fdatasync", descriptor, {}, file) ? 0 : refusal();
}

std::int64_t RankFileIo::cachestat(int descriptor, ByteRange range) noexcept {
  std::uint32_t file = 0;
  if (!begin("cachestat", descriptor, range, file)) return refusal();
  if (cache_.options().cachestat_errno != 0) return -cache_.options().cachestat_errno;
  return cache_.existing_pages(file, range);
}

std::int64_t RankFileIo::mincore(int descriptor, ByteRange range) noexcept {
  std::uint32_t file = 0;
  if (!begin("mincore", descriptor, range, file)) return refusal();
  if (!cache_.options().owner) {
    return static_cast<std::int64_t>(align_up(range.length, page_bytes()) / page_bytes());
  }
  return cache_.arrived_pages(file, range, threads_.now());
}

}  // namespace shardahead::testing
