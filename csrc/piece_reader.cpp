#include "piece_reader.h"

#include <cerrno>
#include <cstring>
#include <exception>
#include <new>
#include <utility>

#include "residency.h"
#include "strategy.h"
#include "tensor_reader.h"

namespace shardahead {
namespace {

constexpr std::uint64_t kLengthBytes = 8;  // of a safetensors file: how long its header is

std::uint64_t little_endian(const std::byte* bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = kLengthBytes; i-- > 0;) {
    value = value << 8U | std::to_integer<std::uint64_t>(bytes[i]);
  }
  return value;
}

}  // namespace

PieceReader::PieceReader(FileIo& io, std::vector<std::string> paths, bool through_mappings)
    : io_(io),
      paths_(std::move(paths)),
      through_mappings_(through_mappings),
      files_(paths_.size()) {}

PieceReader::PieceReader(const PieceReader& other, Alone)
    : io_(other.io_), paths_(other.paths_), through_mappings_(false), files_(paths_.size()) {}

// Whatever it is opened for: bytes of two versions must not meet.
std::shared_ptr<const File> PieceReader::open(std::size_t index, OpenFile& entry) {
  auto file = File::open(io_, paths_[index]);
  if (entry.first) require_unchanged(*file, *entry.first);
  entry.first = file->status();
  return file;
}

std::shared_ptr<const File> PieceReader::acquire(std::size_t index) {
  OpenFile& entry = files_[index];
  std::shared_ptr<const File> closed;  // outlives the locks: a close, too, may wait for a server
  const MutexLock opening(entry.opening);
  if (auto file = entry.file.lock()) return file;
  auto file = open(index, entry);
  entry.file = file;
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
void PieceReader::advise(const File& file, ByteRange range) {
  if (caches_.load(std::memory_order_relaxed) != Caches::yes) return;
  if (range.length <= kDefaultStepBytes) return;
  if (residency(io_, file, range).resident_bytes == range.length) return;
  for_each_step(range, kDefaultStepBytes,
                [&](ByteRange step) { return io_.fadvise_willneed(file.descriptor(), step) == 0; });
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

PieceResult PieceReader::read(std::size_t index, ByteRange range, std::byte* to) {
  if (!through_mappings_) return read_file(index, range, to);
  PieceResult copied = copy_mapped(index, range, to);
  const std::uint64_t done = copied.read_bytes;
  if (done == range.length) return copied;
  PieceResult rest = read_file(index, {range.offset + done, range.length - done}, to + done);
  rest.read_bytes += done;
  return rest;
}

// Without an error: what cannot be copied is read, and that tells why.
PieceResult PieceReader::copy_mapped(std::size_t index, ByteRange range, std::byte* to) {
  try {
    const auto source = mapped(index);
    return {source->copy(range, to), source->size_bytes(), nullptr, std::nullopt};
  } catch (const std::exception&) {
    return {};
  }
}

PieceResult PieceReader::read_file(std::size_t index, ByteRange range, std::byte* to) {
  PieceResult result;
  try {
    const auto file = acquire(index);
    result.file_bytes = file->status().size_bytes;
    advise(*file, range);
    result.read_bytes = read_plainly(*file, range, to, result.error);
    look_at_cache(*file, {range.offset, result.read_bytes});
  } catch (const IoException& exception) {
    result.error = exception.error();
    result.error->offset = range.offset;
  }
  return result;
}

PieceResult PieceReader::read_each(std::size_t index, std::uint64_t offset,
                                   const std::vector<std::uint64_t>& lengths_bytes, std::byte* to) {
  std::uint64_t total_bytes = 0;
  for (const std::uint64_t length : lengths_bytes) total_bytes += length;
  PieceResult together = read(index, {offset, total_bytes}, to);
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

PieceResult PieceReader::read_header(std::size_t index) {
  PieceResult result;
  auto head = std::make_shared<TensorMemory>(std::vector{kLengthBytes});
  result = read(index, {0, kLengthBytes}, head->tensor(0));
  if (result.error) return result;
  const std::uint64_t length = little_endian(head->tensor(0));
  if (length > kMaxHeaderBytes || kLengthBytes + length > result.file_bytes) {
    result.header = std::move(head);
    return result;
  }
  try {
    auto whole = std::make_shared<TensorMemory>(std::vector{kLengthBytes + length});
    std::memcpy(whole->tensor(0), head->tensor(0), kLengthBytes);
    PieceResult rest = read(index, {kLengthBytes, length}, whole->tensor(0) + kLengthBytes);
    result.read_bytes += rest.read_bytes;
    result.error = std::move(rest.error);
    if (!result.error) result.header = std::move(whole);
  } catch (const std::bad_alloc&) {
    result.error = {ENOMEM, "mmap", paths_[index], 0, ""};
  }
  return result;
}

}  // namespace shardahead
