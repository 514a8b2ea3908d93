#include "reader/piece_reader.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <exception>
#include <new>
#include <utility>

#include "node/residency.h"
#include "plan/strategy.h"

namespace shardahead {
namespace {

constexpr std::uint64_t kLengthBytes = 8;  // of a safetensors file: how long its header is
constexpr std::uint64_t kSampleBytes = 4 * kKiB;

std::uint64_t little_endian(const std::byte* bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = kLengthBytes; i-- > 0;) {
    value = value << 8U | std::to_integer<std::uint64_t>(bytes[i]);
  }
  return value;
}

}  // namespace

PieceReader::PieceReader(FileIo& io, std::vector<std::string> paths, bool through_mappings,
                         const std::vector<FileStatus>& found, Runtime& runtime)
    : io_(io),
      runtime_(runtime),
      paths_(std::move(paths)),
      through_mappings_(through_mappings),
      files_(paths_.size()) {
  for (std::size_t i = 0; i < std::min(found.size(), files_.size()); ++i) {
    const MutexLock lock(files_[i].opening);
    files_[i].first = found[i];
  }
}

PieceReader::PieceReader(const PieceReader& other, Alone)
    : io_(other.io_),
      runtime_(other.runtime_),
      paths_(other.paths_),
      through_mappings_(false),
      files_(paths_.size()) {}

// Whatever it is opened for: bytes of two versions must not meet.
std::shared_ptr<const File> PieceReader::open(std::size_t index, OpenFile& entry) {
  auto file = File::open(io_, paths_[index]);
  if (entry.first) {
    require_unchanged(*file, *entry.first);
    if (file->status().modified_nanoseconds != entry.first->modified_nanoseconds) {
      entry.samples.require_same(io_, *file);
    }
  }
  entry.first = file->status();
  return file;
}

void PieceReader::Samples::add(std::uint64_t offset, const std::byte* bytes, std::uint64_t length) {
  if (length == 0) return;
  const std::uint64_t taken = std::min(length, kSampleBytes);
  const std::byte* const begin = bytes + (length - taken);
  Sample sample{offset + (length - taken), {begin, begin + taken}};
  const MutexLock lock(mutex_);
  if (kept_.size() < kKept) {
    kept_.push_back(std::move(sample));
    return;
  }
  kept_[1 + next_] = std::move(sample);
  next_ = (next_ + 1) % (kKept - 1);
}

void PieceReader::Samples::require_same(FileIo& io, const File& file) {
  std::vector<Sample> kept;
  {
    const MutexLock lock(mutex_);
    kept = kept_;
  }
  for (const Sample& sample : kept) {
    std::vector<std::byte> now(sample.bytes.size());
    std::uint64_t done = 0;
    const int result =
        pread_full(io, file.descriptor(), now.data(), {sample.offset, now.size()}, done);
    if (result < 0) throw IoException(file.error(-result, "pread", sample.offset + done));
    if (now != sample.bytes) throw IoException(was_replaced(file));
  }
}

std::shared_ptr<const File> PieceReader::acquire(std::size_t index) {
  OpenFile& entry = files_[index];
  std::shared_ptr<const File> closed;  // outlives the locks: a close, too, may wait for a server
  const MutexLock opening(entry.opening);
  return acquire_as(entry.file, index, entry, closed);
}

// A FUSE mount that has enough under way drops advice, without a word, where it is no longer than
// what the kernel reads ahead by itself for the descriptor; for one that was never read that is
// nothing.
std::shared_ptr<const File> PieceReader::acquire_to_advise(std::size_t index,
                                                           std::shared_ptr<const File> read) {
  OpenFile& entry = files_[index];
  if (!entry.read_in_order.load(std::memory_order_relaxed)) return read;
  std::shared_ptr<const File> closed;
  const MutexLock opening(entry.opening);
  try {
    return acquire_as(entry.advised, index, entry, closed);
  } catch (const IoException&) {
    return read;
  }
}

std::shared_ptr<const File> PieceReader::acquire_as(std::weak_ptr<const File>& slot,
                                                    std::size_t index, OpenFile& entry,
                                                    std::shared_ptr<const File>& closed) {
  if (auto file = slot.lock()) return file;
  auto file = open(index, entry);
  slot = file;
  const MutexLock lock(mutex_);
  kept_.push_back(file);
  if (kept_.size() > kKeptFiles) {
    closed = std::move(kept_.front());
    kept_.pop_front();
  }
  return file;
}

// The mapping keeps the file: no descriptor is needed for it.
std::shared_ptr<const MappedSource> PieceReader::mapped(std::size_t index) {
  OpenFile& entry = files_[index];
  const MutexLock opening(entry.opening);
  if (!entry.mapped) entry.mapped = std::make_shared<const MappedSource>(*open(index, entry));
  return entry.mapped;
}

void PieceReader::map(std::size_t index) noexcept {
  if (!through_mappings_) return;
  try {
    mapped(index);
  } catch (const std::exception&) {
    return;  // for read() to meet again
  }
}

// A read goes through the page cache in windows of read_ahead_kb, two of them in flight; advised,
// all of it is.
void PieceReader::advise(std::size_t index, const std::shared_ptr<const File>& file,
                         ByteRange range) {
  if (caches_.load(std::memory_order_relaxed) != Caches::yes) return;
  if (range.length <= kDefaultStepBytes) return;
  if (residency(io_, *file, range).resident_bytes == range.length) return;
  const auto advised = acquire_to_advise(index, file);
  // Of a step that begins within a page the kernel would leave out the last one.
  range = grow_to_units(range, page_bytes(), file->status().size_bytes);
  for_each_step(range, kDefaultStepBytes, [&](ByteRange step) {
    return io_.fadvise_willneed(advised->descriptor(), step) == 0;
  });
}

void PieceReader::look_at_cache(const File& file, ByteRange range) {
  if (caches_.load(std::memory_order_relaxed) != Caches::untried || range.empty()) return;
  const auto resident_bytes = residency(io_, file, range).resident_bytes;
  caches_.store(resident_bytes.value_or(0) > 0 ? Caches::yes : Caches::no,
                std::memory_order_relaxed);
}

std::uint64_t PieceReader::read_plainly(const File& file, ByteRange range, std::byte* to,
                                        std::optional<IoError>& error) {
  std::uint64_t done = 0;
  bool tried_again = false;
  while (done < range.length) {
    const std::uint64_t at = range.offset + done;
    if (cancelled()) {
      error = file.error(ECANCELED, "pread", at);
      return done;
    }
    const std::int64_t count = io_.pread(file.descriptor(), to + done, {at, range.length - done});
    if (count > 0) {
      done += static_cast<std::uint64_t>(count);
    } else if (count == 0) {
      error = file.became_shorter(at);
      return done;
    } else if (std::exchange(tried_again, true)) {
      error = file.error(static_cast<int>(-count), "pread", at);
      return done;
    }
  }
  return done;
}

PieceResult PieceReader::read(std::size_t index, ByteRange range, std::byte* to, bool advises) {
  PieceResult result;
  if (through_mappings_) result = copy_mapped(index, range, to);
  if (const std::uint64_t done = result.read_bytes; done < range.length || !through_mappings_) {
    result = read_file(index, {range.offset + done, range.length - done}, to + done, advises);
    result.read_bytes += done;
  }
  files_[index].samples.add(range.offset, to, result.read_bytes);
  return result;
}

// Without an error: what cannot be copied is read, and that tells why.
PieceResult PieceReader::copy_mapped(std::size_t index, ByteRange range, std::byte* to) {
  try {
    const auto source = mapped(index);
    const auto began = runtime_.now();
    const std::uint64_t copied_bytes = source->copy(range, to);
    note(copied_bytes, began);
    return {copied_bytes, source->size_bytes(), nullptr, std::nullopt};
  } catch (const std::exception&) {
    return {};
  }
}

PieceResult PieceReader::read_file(std::size_t index, ByteRange range, std::byte* to,
                                   bool advises) {
  PieceResult result;
  try {
    const auto file = acquire(index);
    result.file_bytes = file->status().size_bytes;
    const auto began = runtime_.now();
    if (advises) {
      advise(index, file, range);
    } else {
      files_[index].read_in_order.store(true, std::memory_order_relaxed);
    }
    result.read_bytes = read_plainly(*file, range, to, result.error);
    if (!result.error) note(result.read_bytes, began);
    look_at_cache(*file, {range.offset, result.read_bytes});
  } catch (const IoException& exception) {
    result.error = exception.error();
    result.error->offset = range.offset;
  }
  return result;
}

PieceResult PieceReader::read_each(std::size_t index, std::uint64_t offset,
                                   const std::vector<std::uint64_t>& lengths_bytes, std::byte* to,
                                   bool advises) {
  std::uint64_t total_bytes = 0;
  for (const std::uint64_t length : lengths_bytes) total_bytes += length;
  PieceResult together = read(index, {offset, total_bytes}, to, advises);
  if (!together.error || lengths_bytes.size() == 1) return together;
  // Where the page cache is bypassed, a bad page spoils the whole request.
  std::uint64_t at = 0;
  for (const std::uint64_t length : lengths_bytes) {
    PieceResult one = read(index, {offset + at, length}, to + at);
    if (one.error) {
      together.error = std::move(one.error);
      together.read_bytes = at + one.read_bytes;
      return together;
    }
    at += length;
  }
  together.error.reset();  // it was of the moment
  together.read_bytes = total_bytes;
  return together;
}

PieceResult PieceReader::read_runs(std::size_t index, std::uint64_t offset, const ByteRuns& runs,
                                   ByteRange packed, std::byte* to) {
  PieceResult result;
  RunReads reads(runs, packed);
  while (const auto next = reads.next(gap_bytes(), kMostThroughGapsBytes)) {
    std::byte* const landing = to + (next->packed.offset - packed.offset);
    PieceResult one = next->has_gaps()
                          ? read_through_gaps(index, offset, runs, *next, landing)
                          : read(index, {offset + next->range.offset, next->range.length}, landing);
    result.read_bytes += one.read_bytes;
    result.file_bytes = std::max(result.file_bytes, one.file_bytes);
    result.error = std::move(one.error);
    if (result.error) break;
  }
  return result;
}

PieceResult PieceReader::read_through_gaps(std::size_t index, std::uint64_t offset,
                                           const ByteRuns& runs, const RunRead& whole,
                                           std::byte* to) {
  PieceResult result;
  const std::unique_ptr<std::byte[]> bounce(new (std::nothrow) std::byte[whole.range.length]);
  if (bounce) {
    result = read(index, {offset + whole.range.offset, whole.range.length}, bounce.get());
    if (!result.error) copy_runs(runs, whole, bounce.get(), to);
    if (!result.error || cancelled()) return result;
  }
  // No memory for the gaps, or what stands in the way may lie in one.
  result.error.reset();
  RunReads each(runs, whole.packed);
  while (const auto run = each.next(0, whole.range.length)) {
    PieceResult one = read(index, {offset + run->range.offset, run->range.length}, to);
    result.read_bytes += one.read_bytes;
    result.error = std::move(one.error);
    if (result.error) break;
    to += run->packed.length;
  }
  return result;
}

std::uint64_t PieceReader::gap_bytes() const { return cost_.gap_bytes(); }

void PieceReader::note(std::uint64_t read_bytes, Runtime::Time began) {
  cost_.note(read_bytes, runtime_.now() - began);
}

std::uint64_t PieceReader::file_bytes(std::size_t index) {
  if (through_mappings_) {
    try {
      return mapped(index)->size_bytes();
    } catch (const IoException&) {
      return acquire(index)->status().size_bytes;
    }
  }
  return acquire(index)->status().size_bytes;
}

// As many of kPrefixBytes as the file has: a short one is no error here.
PieceResult PieceReader::read_prefix(std::size_t index, std::byte* to) {
  PieceResult result;
  try {
    result.file_bytes = file_bytes(index);
  } catch (const IoException& exception) {
    result.error = exception.error();
    return result;
  }
  if (result.file_bytes == 0) return result;
  return read(index, {0, std::min(kPrefixBytes, result.file_bytes)}, to);
}

PieceResult PieceReader::read_header(std::size_t index) {
  if (through_mappings_) return read_whole_header(index);
  std::shared_ptr<const File> file;
  try {
    file = acquire(index);
  } catch (const std::exception&) {
    return read_whole_header(index);  // which tells
  }
  // Else a page gets a mark, at which whoever uses it has the kernel read on, into what nobody may
  // want, and further the more the mount reads ahead.
  io_.fadvise_random(file->descriptor());
  PieceResult result = read_whole_header(index);
  io_.fadvise_normal(file->descriptor());
  return result;
}

PieceResult PieceReader::read_whole_header(std::size_t index) {
  std::array<std::byte, kPrefixBytes> head{};
  PieceResult result = read_prefix(index, head.data());
  if (result.error) return result;
  const std::uint64_t prefix_bytes = result.read_bytes;
  const std::uint64_t length =
      prefix_bytes < kLengthBytes ? kMaxHeaderBytes + 1 : little_endian(head.data());
  const bool possible = length <= kMaxHeaderBytes && kLengthBytes + length <= result.file_bytes;
  try {
    const std::uint64_t whole_bytes =
        possible ? std::max(kLengthBytes + length, prefix_bytes) : prefix_bytes;
    auto whole = std::make_shared<TensorMemory>(std::vector{whole_bytes});
    const std::uint64_t known_bytes = std::min(whole_bytes, prefix_bytes);
    if (known_bytes > 0) std::memcpy(whole->tensor(0), head.data(), known_bytes);
    if (whole_bytes > known_bytes) {
      PieceResult rest =
          read(index, {known_bytes, whole_bytes - known_bytes}, whole->tensor(0) + known_bytes);
      result.read_bytes += rest.read_bytes;
      result.error = std::move(rest.error);
    }
    if (!result.error) result.header = std::move(whole);
  } catch (const std::bad_alloc&) {
    result.error = {ENOMEM, "mmap", paths_[index], 0, ""};
  }
  return result;
}

}  // namespace shardahead
