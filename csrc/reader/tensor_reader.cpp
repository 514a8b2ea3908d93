#include "reader/tensor_reader.h"

#include <atomic>
#include <chrono>
#include <deque>
#include <exception>
#include <stdexcept>
#include <utility>

#include "base/let_go.h"
#include "base/process_mark.h"
#include "base/runtime.h"
#include "base/signals_blocked.h"
#include "base/thread_safety.h"
#include "base/waiting.h"
#include "reader/piece_reader.h"
#include "reader/read_parts.h"

namespace shardahead {

// Owned by the reader and by each of its threads.
struct TensorReader::State {
  State(FileIo& io, std::vector<std::string> paths, const TensorReaderOptions& given)
      : options(given), reader(io, std::move(paths), given.through_mappings, given.found) {}

  const TensorReaderOptions options;
  const ProcessMark process;
  PieceReader reader;
  std::atomic<std::size_t> next_to_map{0};  // of the files

  mutable Mutex mutex;
  Condition more_work;
  Condition settled;
  std::deque<PartState> parts GUARDED_BY(mutex);
  // No part before it has anything left to begin.
  std::size_t first_unbegun GUARDED_BY(mutex) = 0;
  PartState* waited_for GUARDED_BY(mutex) = nullptr;
  std::uint64_t held_bytes GUARDED_BY(mutex) = 0;  // allotted and not taken
  std::uint64_t read_bytes GUARDED_BY(mutex) = 0;
  std::uint32_t threads GUARDED_BY(mutex) = 0;
  std::size_t mapped_files GUARDED_BY(mutex) = 0;  // or tried in vain
  bool closed GUARDED_BY(mutex) = false;

  Part add(PartState part);
  Part add_in_child(PartState part);
  TakenPart take_in_child(Part index);
  void map_files();
  void work();
  PartState* next_part() REQUIRES(mutex);
  std::optional<Piece> next_piece() REQUIRES(mutex);
  enum class Allotted { yes, failed, not_now };
  Allotted allot(PartState& part) REQUIRES(mutex);
  static void fail(PartState& part, IoError error) noexcept;
  bool free_memory_of(Part index) noexcept;
  void settle(const Piece& piece, PieceResult result) REQUIRES(mutex);
  PieceResult read(const Piece& piece) noexcept;
  PieceResult try_read(const Piece& piece);
  bool is_settled(const PartState* part) const REQUIRES(mutex);
  void wait_settled(MutexLock& lock, const PartState* part, const Between& between) REQUIRES(mutex);
  TakenPart take(PartState& part) REQUIRES(mutex);
  TakenPart read_alone(const AddedPart& part);
};

TensorReader::TensorReader(FileIo& io, std::vector<std::string> paths,
                           const TensorReaderOptions& options) {
  if (options.threads < 1 || options.threads > kMaxThreads) {
    throw std::invalid_argument("threads must be between 1 and 256, not " +
                                std::to_string(options.threads));
  }
  if (options.piece_bytes == 0) throw std::invalid_argument("piece_bytes must not be 0");
  state_ = std::make_shared<State>(io, std::move(paths), options);
  const SignalsBlocked blocked;
  const MutexLock lock(state_->mutex);
  try {
    for (std::uint32_t i = 0; i < options.threads; ++i) {
      // Detached, as the engine's: a join could wait for a dead server for ever.
      system_runtime().start_thread("shardahead-r" + std::to_string(i), [state = state_] {
        state->map_files();
        state->work();
      });
      ++state_->threads;
    }
  } catch (const std::exception&) {
    return;  // fewer do the same work, and without any take() does it
  }
}

TensorReader::~TensorReader() {
  close();
  let_go_elsewhere(std::move(state_));
}

TensorReader::Part TensorReader::add(std::size_t file, std::uint64_t offset,
                                     std::vector<std::uint64_t> lengths_bytes) {
  PartState part;
  part.file = file;
  part.offset = offset;
  for (const std::uint64_t length : lengths_bytes) part.length_bytes += length;
  part.lengths_bytes = std::move(lengths_bytes);
  return state_->add(std::move(part));
}

TensorReader::Part TensorReader::add_header(std::size_t file) {
  PartState part;
  part.file = file;
  part.header = true;
  return state_->add(std::move(part));
}

TensorReader::Part TensorReader::State::add(PartState part) {
  static_cast<void>(reader.path(part.file));  // throws where there is no such file
  if (!process.is_here()) return add_in_child(std::move(part));
  const MutexLock lock(mutex);
  parts.push_back(std::move(part));
  more_work.notify_all();
  return parts.size() - 1;
}

// A forked child has one thread, and must not wait for a mutex that one of its parent's held.
TensorReader::Part TensorReader::State::add_in_child(PartState part) NO_THREAD_SAFETY_ANALYSIS {
  parts.push_back(std::move(part));
  return parts.size() - 1;
}

TakenPart TensorReader::State::take_in_child(Part index) NO_THREAD_SAFETY_ANALYSIS {
  return read_alone(parts.at(index));
}

void TensorReader::wait_opened(const Between& between) {
  State& state = *state_;
  if (!state.process.is_here() || !state.options.through_mappings) return;
  MutexLock lock(state.mutex);
  state.wait_settled(lock, nullptr, between);
}

bool TensorReader::ready(Part part) const {
  if (!state_->process.is_here()) return true;
  const MutexLock lock(state_->mutex);
  return state_->parts.at(part).settled();
}

TakenPart TensorReader::take(Part index, const Between& between) {
  State& state = *state_;
  if (!state.process.is_here()) return state.take_in_child(index);
  MutexLock lock(state.mutex);
  PartState& part = state.parts.at(index);
  if (state.threads == 0 && !part.taken) {
    part.taken = true;
    return state.read_alone(part);
  }
  state.waited_for = &part;
  state.more_work.notify_all();
  state.wait_settled(lock, &part, between);
  state.waited_for = nullptr;
  if (state.closed || part.taken) throw std::logic_error("the reader of the tensors is closed");
  return state.take(part);
}

void TensorReader::close() {
  if (!state_->process.is_here()) return;
  state_->reader.cancel();
  {
    const MutexLock lock(state_->mutex);
    state_->closed = true;
    state_->more_work.notify_all();
    state_->settled.notify_all();
  }
  for (std::size_t i = 0; state_->free_memory_of(i); ++i) continue;
}

// False behind the last part. The memory outlives the lock: there may be much to unmap.
bool TensorReader::State::free_memory_of(Part index) noexcept {
  std::shared_ptr<TensorMemory> freed;
  const MutexLock lock(mutex);
  if (index >= parts.size()) return false;
  freed = std::move(parts[index].result.memory);
  return true;
}

std::uint64_t TensorReader::read_bytes() const {
  if (!state_->process.is_here()) return 0;
  const MutexLock lock(state_->mutex);
  return state_->read_bytes;
}

// All threads share it, before any of them reads.
void TensorReader::State::map_files() {
  if (!options.through_mappings) return;
  while (true) {
    const std::size_t file = next_to_map.fetch_add(1, std::memory_order_relaxed);
    if (file >= reader.files() || reader.cancelled()) return;
    reader.map(file);
    const MutexLock lock(mutex);
    ++mapped_files;
    settled.notify_all();
  }
}

void TensorReader::State::work() {
  MutexLock lock(mutex);
  while (!closed) {
    const auto piece = next_piece();
    if (!piece) {
      more_work.wait(mutex);
      continue;
    }
    lock.unlock();
    PieceResult result = read(*piece);
    lock.lock();
    if (!closed) settle(*piece, std::move(result));
    settled.notify_all();
  }
}

// The first part of which something is left to begin.
PartState* TensorReader::State::next_part() {
  if (waited_for != nullptr && !waited_for->begun()) return waited_for;
  while (first_unbegun < parts.size() && parts[first_unbegun].begun()) ++first_unbegun;
  if (first_unbegun == parts.size()) return nullptr;
  PartState& part = parts[first_unbegun];
  const bool fits = held_bytes == 0 || held_bytes + part.memory_bytes() <= options.ahead_bytes;
  return part.allotted || part.header || fits ? &part : nullptr;
}

std::optional<Piece> TensorReader::State::next_piece() {
  for (PartState* part = next_part(); part != nullptr; part = next_part()) {
    const Allotted allotted = allot(*part);
    if (allotted == Allotted::not_now) return std::nullopt;
    if (allotted == Allotted::failed) {
      settled.notify_all();
      continue;
    }
    Piece piece{part, part->result.memory, {part->offset + part->begun_bytes, 0}};
    ++part->running;
    if (part->header) return piece;
    // Small tensors are spread when all of them are there: at once.
    const std::uint64_t left = part->length_bytes - part->begun_bytes;
    piece.range.length =
        part->lengths_bytes.size() > 1 ? left : std::min(left, options.piece_bytes);
    part->begun_bytes += piece.range.length;
    return piece;
  }
  return std::nullopt;
}

// Failed where there is nothing to read, or no memory for it. Memory that is not there ahead may be
// there once the consumer, which comes for the part then, has let go of what it holds now.
TensorReader::State::Allotted TensorReader::State::allot(PartState& part) {
  if (part.allotted) return Allotted::yes;
  try {
    if (!part.header) part.result.memory = std::make_shared<TensorMemory>(part.lengths_bytes);
  } catch (const std::bad_alloc&) {
    if (&part != waited_for) return Allotted::not_now;
    part.allotted = true;
    fail(part, caught_error("mmap", reader.path(part.file), part.offset));
    return Allotted::failed;
  }
  part.allotted = true;
  if (part.header) return Allotted::yes;
  part.result.readable_bytes = part.length_bytes;
  held_bytes += part.memory_bytes();
  return part.length_bytes > 0 ? Allotted::yes : Allotted::failed;
}

void TensorReader::State::fail(PartState& part, IoError error) noexcept {
  part.begun_bytes = part.length_bytes;  // what follows is of no use to anyone
  if (part.result.error && part.result.error->offset <= error.offset) return;
  part.result.readable_bytes = error.offset - part.offset;
  part.result.error = std::move(error);
}

void TensorReader::State::settle(const Piece& piece, PieceResult result) {
  PartState& part = *piece.part;
  --part.running;
  read_bytes += result.read_bytes;
  if (result.file_bytes > 0) part.result.file_bytes = result.file_bytes;
  if (part.header) {
    part.result.memory = std::move(result.header);
    part.result.readable_bytes = part.result.memory ? part.result.memory->length_bytes(0) : 0;
    part.result.error = std::move(result.error);
  } else if (result.error) {
    fail(part, std::move(*result.error));
  }
  more_work.notify_all();  // an error may have left the part nothing to begin
}

// Whatever it meets, the piece is settled: someone may wait for it.
PieceResult TensorReader::State::read(const Piece& piece) noexcept {
  try {
    return try_read(piece);
  } catch (...) {
    PieceResult result;
    result.error = caught_error("pread", reader.path(piece.part->file), piece.range.offset);
    return result;
  }
}

PieceResult TensorReader::State::try_read(const Piece& piece) {
  const AddedPart& part = *piece.part;  // and no more of it: the mutex is not locked
  if (part.header) return reader.read_header(part.file);
  std::byte* const to = piece.memory->landing() + (piece.range.offset - part.offset);
  if (part.lengths_bytes.size() == 1) return reader.read(part.file, piece.range, to);
  PieceResult result = reader.read_each(part.file, part.offset, part.lengths_bytes, to);
  piece.memory->spread();
  return result;
}

// Without a part: whether all files are open.
bool TensorReader::State::is_settled(const PartState* part) const {
  if (closed) return true;
  return part ? part->settled() : threads == 0 || mapped_files == reader.files();
}

// Unchecked: the analysis does not see that `lock` is of `mutex`.
void TensorReader::State::wait_settled(MutexLock& lock, const PartState* part,
                                       const Between& between) NO_THREAD_SAFETY_ANALYSIS {
  while (!is_settled(part)) {
    settled.wait_until(mutex, std::chrono::steady_clock::now() + kConsumerSlice);
    if (is_settled(part) || !between) continue;
    lock.unlock();
    between();
    lock.lock();
  }
}

TakenPart TensorReader::State::take(PartState& part) {
  part.taken = true;
  held_bytes -= part.result.memory && !part.header ? part.memory_bytes() : 0;
  more_work.notify_all();
  return std::move(part.result);
}

// Without any thread, lock or shared state.
TakenPart TensorReader::State::read_alone(const AddedPart& part) {
  PartState own;
  static_cast<AddedPart&>(own) = part;
  PieceReader alone(reader, PieceReader::Alone{});
  if (own.header) {
    PieceResult result = alone.read_header(own.file);
    own.result = {std::move(result.header), 0, result.file_bytes, std::move(result.error)};
    return std::move(own.result);
  }
  auto memory = std::make_shared<TensorMemory>(own.lengths_bytes);
  PieceResult result = alone.read_each(own.file, own.offset, own.lengths_bytes, memory->landing());
  memory->spread();
  own.result.memory = std::move(memory);
  own.result.readable_bytes = own.length_bytes;
  own.result.file_bytes = result.file_bytes;
  if (result.error) fail(own, std::move(*result.error));
  return std::move(own.result);
}

}  // namespace shardahead
