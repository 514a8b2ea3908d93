#include "simulated_file_io.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <span>

#include "simulated_content.h"

namespace shardahead::testing {
namespace {

struct PageRange {
  std::size_t begin;
  std::size_t end;
};

PageRange pages_of(ByteRange range, std::uint64_t size_bytes) {
  const ByteRange cut = intersect(range, {0, size_bytes});
  if (cut.empty()) return {0, 0};
  return {cut.offset / page_bytes(), align_up(cut.end(), page_bytes()) / page_bytes()};
}

}  // namespace

void SimulatedFileIo::add_file(const std::string& path, std::uint64_t size_bytes,
                               std::uint64_t device) {
  const std::lock_guard lock(mutex_);
  const std::size_t pages = align_up(size_bytes, page_bytes()) / page_bytes();
  files_.push_back({path, size_bytes, device, files_.size() + 1, std::vector<Page>(pages)});
}

void SimulatedFileIo::truncate(const std::string& path, std::uint64_t size_bytes) {
  const std::lock_guard lock(mutex_);
  SimulatedFile* file = find(path);
  file->size_bytes = size_bytes;
  file->pages.resize(align_up(size_bytes, page_bytes()) / page_bytes());
}

void SimulatedFileIo::make_resident(const std::string& path, ByteRange range) {
  const std::lock_guard lock(mutex_);
  SimulatedFile* file = find(path);
  const PageRange pages = pages_of(range, file->size_bytes);
  for (std::size_t page = pages.begin; page < pages.end; ++page) {
    file->pages[page].state = PageState::up_to_date;
  }
}

void SimulatedFileIo::spoil(const std::string& path, ByteRange range) {
  const std::lock_guard lock(mutex_);
  SimulatedFile* file = find(path);
  const PageRange pages = pages_of(range, file->size_bytes);
  for (std::size_t page = pages.begin; page < pages.end; ++page) {
    file->pages[page].state = PageState::failed;
  }
}

void SimulatedFileIo::after_advice(std::function<void(const std::string&, ByteRange)> hook) {
  const std::lock_guard lock(mutex_);
  after_advice_ = std::move(hook);
}

std::uint64_t SimulatedFileIo::resident_bytes(const std::string& path) const {
  const std::lock_guard lock(mutex_);
  const auto file = std::find_if(files_.begin(), files_.end(),
                                 [&](const SimulatedFile& each) { return each.path == path; });
  std::uint64_t bytes = 0;
  for (std::size_t page = 0; page < file->pages.size(); ++page) {
    if (file->pages[page].state == PageState::absent) continue;
    bytes += std::min(page_bytes(), file->size_bytes - page * page_bytes());
  }
  return bytes;
}

std::uint32_t SimulatedFileIo::most_loads_of_a_page() const {
  const std::lock_guard lock(mutex_);
  std::uint32_t most = 0;
  for (const SimulatedFile& file : files_) {
    for (const Page& page : file.pages) most = std::max<std::uint32_t>(most, page.loads);
  }
  return most;
}

std::vector<Request> SimulatedFileIo::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

std::uint64_t SimulatedFileIo::calls(Operation operation) const {
  const std::lock_guard lock(mutex_);
  return calls_[static_cast<std::size_t>(operation)];
}

bool SimulatedFileIo::wait_until_closed(std::chrono::seconds bound) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, bound, [&] { return open_.empty(); });
}

bool SimulatedFileIo::wait_until_requested(const std::string& path, std::uint64_t offset,
                                           std::chrono::seconds bound) const {
  const auto begins_there = [&](const Request& request) {
    return request.path == path && request.operation != Operation::cachestat &&
           !request.range.empty() && request.range.offset == offset;
  };
  std::unique_lock lock(mutex_);
  return changed_.wait_for(
      lock, bound, [&] { return std::any_of(requests_.begin(), requests_.end(), begins_there); });
}

std::byte SimulatedFileIo::content(const std::string& path, std::uint64_t offset) {
  return content_at(path.size(), offset);
}

int SimulatedFileIo::status(const std::string& path, FileStatus& status) noexcept {
  const std::lock_guard lock(mutex_);
  record(Operation::status, path);
  const SimulatedFile* file = find(path);
  if (file == nullptr) return -ENOENT;
  describe(*file, status);
  return 0;
}

int SimulatedFileIo::status(int descriptor, FileStatus& status) noexcept {
  const std::lock_guard lock(mutex_);
  const SimulatedFile* file = find(descriptor);
  if (file == nullptr) return -EBADF;
  record(Operation::status, file->path);
  describe(*file, status);
  status.owned_or_writable = kernel_.owner;
  return 0;
}

void SimulatedFileIo::describe(const SimulatedFile& file, FileStatus& status) const {
  status.size_bytes = file.size_bytes;
  status.device = file.device;
  status.inode = file.inode;
  status.mode = S_IFREG | 0644;
}

int SimulatedFileIo::open(const std::string& path) noexcept {
  const std::lock_guard lock(mutex_);
  record(Operation::open, path);
  SimulatedFile* file = find(path);
  if (file == nullptr) return -ENOENT;
  if (kernel_.open_empties) file->pages.assign(file->pages.size(), {});
  open_[next_descriptor_] = file;
  return next_descriptor_++;
}

int SimulatedFileIo::close(int descriptor) noexcept {
  const std::lock_guard lock(mutex_);
  const SimulatedFile* file = find(descriptor);
  if (file == nullptr) return -EBADF;
  open_.erase(descriptor);
  record(Operation::close, file->path);
  return 0;
}

std::int64_t SimulatedFileIo::pread(int descriptor, std::byte* buffer, ByteRange range) noexcept {
  const std::lock_guard lock(mutex_);
  SimulatedFile* file = find(descriptor);
  if (file == nullptr) return -EBADF;
  record(Operation::pread, file->path, range);
  ByteRange cut = intersect(range, {0, file->size_bytes});
  if (cut.empty()) return 0;
  PageRange pages = pages_of(cut, file->size_bytes);
  for (std::size_t page = pages.begin; page < pages.end; ++page) {
    if (file->pages[page].state != PageState::failed) continue;
    if (page == pages.begin) return -EIO;
    cut.length = page * page_bytes() - cut.offset;
    pages.end = page;
  }
  if (kernel_.uncached) served_bytes_ += cut.length;
  for (std::size_t page = pages.begin; page < pages.end && !kernel_.uncached; ++page) {
    if (file->pages[page].state != PageState::absent) continue;
    const std::uint64_t at = page * page_bytes();
    const std::uint64_t window_bytes = random_.contains(descriptor) ? 0 : kernel_.read_window_bytes;
    load(*file, {at, std::max(window_bytes, cut.end() - at)});
  }
  for (std::size_t page = 0; page < pages.end; ++page) {
    PageState& state = file->pages[page].state;
    if (state == PageState::in_flight) state = PageState::up_to_date;
  }
  fill_with_content(file->path.size(), cut, buffer);
  return static_cast<std::int64_t>(cut.length);
}

int SimulatedFileIo::advise(Operation operation, int descriptor, ByteRange range) {
  std::function<void(const std::string&, ByteRange)> hook;
  std::string path;
  {
    const std::lock_guard lock(mutex_);
    SimulatedFile* file = find(descriptor);
    if (file == nullptr) return -EBADF;
    record(operation, file->path, range);
    path = file->path;
    hook = after_advice_;
    ++advices_;
    const bool dropped = spoiled_.contains(descriptor) ||
                         (kernel_.drop_every > 0 && advices_ % kernel_.drop_every == 0);
    if (!dropped) {
      load(*file, {range.offset, std::min(range.length, kernel_.advise_clip_bytes)});
    }
  }
  if (hook) hook(path, range);
  return 0;
}

int SimulatedFileIo::fadvise_willneed(int descriptor, ByteRange range) noexcept {
  return advise(Operation::fadvise_willneed, descriptor, range);
}

int SimulatedFileIo::readahead(int descriptor, ByteRange range) noexcept {
  return advise(Operation::readahead, descriptor, range);
}

int SimulatedFileIo::fadvise_random(int descriptor) noexcept {
  const std::lock_guard lock(mutex_);
  random_.insert(descriptor);
  return 0;
}

int SimulatedFileIo::fadvise_normal(int descriptor) noexcept {
  const std::lock_guard lock(mutex_);
  random_.erase(descriptor);
  return 0;
}

int SimulatedFileIo::fault_in_huge_pages(int descriptor, ByteRange range) noexcept {
  const std::lock_guard lock(mutex_);
  SimulatedFile* file = find(descriptor);
  if (file == nullptr) return -EBADF;
  record(Operation::fault_in_huge_pages, file->path, range);
  if (kernel_.populate_bytes == 0) return -EINVAL;
  if (kernel_.populate_spoils_advice) spoiled_.insert(descriptor);
  PageState& first = file->pages[range.offset / page_bytes()].state;
  if (first == PageState::absent) {
    const std::uint64_t most = range.length <= kHugePageBytes ? kHugePageBytes : kPopulateBytes;
    load(*file, {align_down(range.offset, kHugePageBytes), std::min(most, kernel_.populate_bytes)});
  }
  first = PageState::up_to_date;
  return 0;
}

int SimulatedFileIo::fadvise_dontneed(int descriptor, ByteRange range) noexcept {
  const std::lock_guard lock(mutex_);
  SimulatedFile* file = find(descriptor);
  if (file == nullptr) return -EBADF;
  record(Operation::fadvise_dontneed, file->path, range);
  const PageRange pages = pages_of(range, file->size_bytes);
  for (std::size_t page = pages.begin; page < pages.end; ++page) {
    PageState& state = file->pages[page].state;
    if (state == PageState::up_to_date) state = PageState::absent;
  }
  return 0;
}

int SimulatedFileIo::fdatasync(int descriptor) noexcept {
  const std::lock_guard lock(mutex_);
  const SimulatedFile* file = find(descriptor);
  if (file == nullptr) return -EBADF;
  record(Operation::fdatasync, file->path);
  return 0;
}

template <typename Counts>
std::int64_t SimulatedFileIo::count_pages(const SimulatedFile& file, ByteRange range,
                                          Counts counts) const {
  const PageRange pages = pages_of(range, file.size_bytes);
  const auto asked = std::span(file.pages).subspan(pages.begin, pages.end - pages.begin);
  return std::ranges::count_if(asked, [&](const Page& page) { return counts(page.state); });
}

std::int64_t SimulatedFileIo::cachestat(int descriptor, ByteRange range) noexcept {
  const std::lock_guard lock(mutex_);
  const SimulatedFile* file = find(descriptor);
  if (file == nullptr) return -EBADF;
  record(Operation::cachestat, file->path, range);
  if (kernel_.cachestat_errno != 0) return -kernel_.cachestat_errno;
  if (kernel_.blind_cachestat) return 0;
  return count_pages(*file, range, [](PageState state) { return state != PageState::absent; });
}

std::int64_t SimulatedFileIo::mincore(int descriptor, ByteRange range) noexcept {
  const std::lock_guard lock(mutex_);
  const SimulatedFile* file = find(descriptor);
  if (file == nullptr) return -EBADF;
  record(Operation::mincore, file->path, range);
  if (range.offset % page_bytes() != 0) return -EINVAL;
  if (kernel_.uncached) return -ENODEV;
  return count_pages(*file, range, [&](PageState state) {
    return !kernel_.owner || state == PageState::up_to_date;
  });
}

void SimulatedFileIo::load(SimulatedFile& file, ByteRange range) {
  const PageRange pages = pages_of(range, file.size_bytes);
  for (std::size_t index = pages.begin; index < pages.end; ++index) {
    Page& page = file.pages[index];
    if (page.state != PageState::absent) continue;
    page.state = PageState::in_flight;
    ++page.loads;
    served_bytes_ += std::min(page_bytes(), file.size_bytes - index * page_bytes());
  }
}

void SimulatedFileIo::record(Operation operation, const std::string& path, ByteRange range) {
  ++calls_[static_cast<std::size_t>(operation)];
  requests_.push_back({operation, path, range});
  changed_.notify_all();
}

SimulatedFileIo::SimulatedFile* SimulatedFileIo::find(const std::string& path) {
  for (SimulatedFile& file : files_) {
    if (file.path == path) return &file;
  }
  return nullptr;
}

SimulatedFileIo::SimulatedFile* SimulatedFileIo::find(int descriptor) {
  const auto found = open_.find(descriptor);
  return found == open_.end() ? nullptr : found->second;
}

}  // namespace shardahead::testing
