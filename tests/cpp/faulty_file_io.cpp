#include "faulty_file_io.h"

#include <iterator>

namespace shardahead {
namespace {

constexpr ByteRange kNoRange = {};  // of operations on a whole file

bool applies(const Fault& fault, Operation operation, const std::string& path, ByteRange range) {
  if (fault.operation != operation || fault.times == 0) return false;
  if (!path.ends_with(fault.path_suffix)) return false;
  return range.empty() || (range.end() > fault.from_offset && range.offset < fault.to_offset);
}

std::int64_t pages_of(ByteRange range) {
  const ByteRange pages = grow_to_units(range, page_bytes(), align_up(range.end(), page_bytes()));
  return static_cast<std::int64_t>(pages.length / page_bytes());
}

}  // namespace

void FaultyFileIo::add(Fault fault) {
  const MutexLock lock(mutex_);
  faults_.push_back(std::move(fault));
}

void FaultyFileIo::clear_faults() {
  const MutexLock lock(mutex_);
  faults_.clear();
}

std::uint64_t FaultyFileIo::calls(Operation operation) const {
  const MutexLock lock(mutex_);
  return calls_[static_cast<std::size_t>(operation)];
}

bool FaultyFileIo::wait_until_stalled(std::uint32_t count, std::chrono::seconds bound) const {
  const MutexLock lock(mutex_);
  const auto until = std::chrono::steady_clock::now() + bound;
  while (stalled_ < count) {
    if (!one_stalls_.wait_until(mutex_, until)) return stalled_ >= count;
  }
  return true;
}

void FaultyFileIo::release_stalled() {
  const MutexLock lock(mutex_);
  released_ = true;
  released_all_.notify_all();
}

std::string FaultyFileIo::path_of(int descriptor) const {
  const MutexLock lock(mutex_);
  const auto found = paths_.find(descriptor);
  return found == paths_.end() ? std::string() : found->second;
}

FaultyFileIo::Outcome FaultyFileIo::meet(Operation operation, int descriptor, ByteRange range,
                                         std::int64_t& result, Fault* met) {
  return meet(operation, path_of(descriptor), range, result, met);
}

FaultyFileIo::Outcome FaultyFileIo::meet(Operation operation, const std::byte* memory,
                                         std::uint64_t length_bytes, std::int64_t& result) {
  std::string path;
  ByteRange range{0, length_bytes};
  {
    const MutexLock lock(mutex_);
    const auto behind = mapped_.upper_bound(memory);
    if (behind != mapped_.begin()) {
      const auto& [begin, name] = *std::prev(behind);
      path = name;
      range.offset = static_cast<std::uint64_t>(memory - begin);
    }
  }
  return meet(operation, path, range, result);
}

FaultyFileIo::Outcome FaultyFileIo::meet(Operation operation, const std::string& path,
                                         ByteRange range, std::int64_t& result, Fault* met) {
  const MutexLock lock(mutex_);
  ++calls_[static_cast<std::size_t>(operation)];
  for (Fault& fault : faults_) {
    if (!applies(fault, operation, path, range)) continue;
    if (fault.kind == FaultKind::stall && released_) continue;
    if (fault.times != Fault::kForEver) --fault.times;
    if (met != nullptr) *met = fault;
    switch (fault.kind) {
      case FaultKind::fail: result = -fault.errno_value; return Outcome::done;
      case FaultKind::lose_advice:
      case FaultKind::deny: result = 0; return Outcome::done;
      case FaultKind::lie: result = pages_of(range); return Outcome::done;
      case FaultKind::short_read:
      case FaultKind::end_of_file: return Outcome::pass;
      case FaultKind::stall: break;
    }
    ++stalled_;
    one_stalls_.notify_all();
    while (!released_) released_all_.wait(mutex_);
    --stalled_;
    return Outcome::pass;
  }
  return Outcome::pass;
}

int FaultyFileIo::status(const std::string& path, FileStatus& status) noexcept {
  std::int64_t result = 0;
  const Outcome outcome = meet(Operation::status, path, kNoRange, result);
  return outcome == Outcome::done ? static_cast<int>(result) : inner_.status(path, status);
}

int FaultyFileIo::status(int descriptor, FileStatus& status) noexcept {
  std::int64_t result = 0;
  const Outcome outcome = meet(Operation::status, descriptor, kNoRange, result);
  return outcome == Outcome::done ? static_cast<int>(result) : inner_.status(descriptor, status);
}

int FaultyFileIo::open(const std::string& path) noexcept {
  std::int64_t result = 0;
  if (meet(Operation::open, path, kNoRange, result) == Outcome::done) {
    return static_cast<int>(result);
  }
  const int descriptor = inner_.open(path);
  if (descriptor < 0) return descriptor;
  const MutexLock lock(mutex_);
  paths_[descriptor] = path;
  return descriptor;
}

// A close that fails has closed all the same, as on Linux.
int FaultyFileIo::close(int descriptor) noexcept {
  std::int64_t result = 0;
  const Outcome outcome = meet(Operation::close, descriptor, kNoRange, result);
  {
    const MutexLock lock(mutex_);
    paths_.erase(descriptor);  // before the number can be given out again
  }
  const int closed = inner_.close(descriptor);
  return outcome == Outcome::done ? static_cast<int>(result) : closed;
}

std::int64_t FaultyFileIo::pread(int descriptor, std::byte* buffer, ByteRange range) noexcept {
  std::int64_t result = 0;
  Fault met;  // kind `fail`, which ends the call, unless another was met
  if (meet(Operation::pread, descriptor, range, result, &met) == Outcome::done) return result;
  if (met.kind == FaultKind::short_read) range.length = std::min(range.length, met.limit_bytes);
  if (met.kind == FaultKind::end_of_file) range = intersect(range, {0, met.limit_bytes});
  return range.empty() ? 0 : inner_.pread(descriptor, buffer, range);
}

int FaultyFileIo::fadvise_willneed(int descriptor, ByteRange range) noexcept {
  std::int64_t result = 0;
  const Outcome outcome = meet(Operation::fadvise_willneed, descriptor, range, result);
  return outcome == Outcome::done ? static_cast<int>(result)
                                  : inner_.fadvise_willneed(descriptor, range);
}

int FaultyFileIo::fadvise_dontneed(int descriptor, ByteRange range) noexcept {
  std::int64_t result = 0;
  const Outcome outcome = meet(Operation::fadvise_dontneed, descriptor, range, result);
  return outcome == Outcome::done ? static_cast<int>(result)
                                  : inner_.fadvise_dontneed(descriptor, range);
}

int FaultyFileIo::readahead(int descriptor, ByteRange range) noexcept {
  std::int64_t result = 0;
  const Outcome outcome = meet(Operation::readahead, descriptor, range, result);
  return outcome == Outcome::done ? static_cast<int>(result) : inner_.readahead(descriptor, range);
}

int FaultyFileIo::fault_in_huge_pages(int descriptor, ByteRange range) noexcept {
  std::int64_t result = 0;
  const Outcome outcome = meet(Operation::fault_in_huge_pages, descriptor, range, result);
  return outcome == Outcome::done ? static_cast<int>(result)
                                  : inner_.fault_in_huge_pages(descriptor, range);
}

int FaultyFileIo::fdatasync(int descriptor) noexcept {
  std::int64_t result = 0;
  const Outcome outcome = meet(Operation::fdatasync, descriptor, kNoRange, result);
  return outcome == Outcome::done ? static_cast<int>(result) : inner_.fdatasync(descriptor);
}

std::int64_t FaultyFileIo::cachestat(int descriptor, ByteRange range) noexcept {
  std::int64_t result = 0;
  const Outcome outcome = meet(Operation::cachestat, descriptor, range, result);
  return outcome == Outcome::done ? result : inner_.cachestat(descriptor, range);
}

std::int64_t FaultyFileIo::mincore(int descriptor, ByteRange range) noexcept {
  std::int64_t result = 0;
  const Outcome outcome = meet(Operation::mincore, descriptor, range, result);
  return outcome == Outcome::done ? result : inner_.mincore(descriptor, range);
}

int FaultyFileIo::map(int descriptor, std::uint64_t length_bytes, MappedFor use,
                      std::byte*& memory) noexcept {
  std::int64_t result = 0;
  const std::string path = path_of(descriptor);
  if (meet(Operation::map, path, kNoRange, result) == Outcome::done) {
    return static_cast<int>(result);
  }
  const int mapped = inner_.map(descriptor, length_bytes, use, memory);
  if (mapped < 0) return mapped;
  const MutexLock lock(mutex_);
  mapped_[memory] = path;
  return mapped;
}

// As a close that fails.
int FaultyFileIo::unmap(std::byte* memory, std::uint64_t length_bytes) noexcept {
  std::int64_t result = 0;
  const Outcome outcome = meet(Operation::unmap, memory, length_bytes, result);
  {
    const MutexLock lock(mutex_);
    mapped_.erase(memory);
  }
  const int unmapped = inner_.unmap(memory, length_bytes);
  return outcome == Outcome::done ? static_cast<int>(result) : unmapped;
}

int FaultyFileIo::fault_in(std::byte* pages, std::uint64_t length_bytes) noexcept {
  std::int64_t result = 0;
  const Outcome outcome = meet(Operation::fault_in, pages, length_bytes, result);
  return outcome == Outcome::done ? static_cast<int>(result) : inner_.fault_in(pages, length_bytes);
}

int FaultyFileIo::give_up(std::byte* pages, std::uint64_t length_bytes) noexcept {
  std::int64_t result = 0;
  const Outcome outcome = meet(Operation::give_up, pages, length_bytes, result);
  return outcome == Outcome::done ? static_cast<int>(result) : inner_.give_up(pages, length_bytes);
}

std::int64_t FaultyFileIo::copy_mapped(const std::byte* from, std::uint64_t length_bytes,
                                       std::byte* to) noexcept {
  std::int64_t result = 0;
  const Outcome outcome = meet(Operation::copy_mapped, from, length_bytes, result);
  return outcome == Outcome::done ? result : inner_.copy_mapped(from, length_bytes, to);
}

}  // namespace shardahead
