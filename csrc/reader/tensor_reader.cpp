#include "reader/tensor_reader.h"

#include <atomic>
#include <chrono>
#include <exception>
#include <stdexcept>
#include <utility>

#include "base/let_go.h"
#include "base/process_mark.h"
#include "base/runtime_condition.h"
#include "base/signals_blocked.h"
#include "reader/part_queue.h"

namespace shardahead {
namespace {

constexpr auto kUntilRung = std::chrono::hours(24);  // and then it waits again

// All threads share it, before any of them reads. Orders nothing but the counts.
class FilesToMap {
 public:
  explicit FilesToMap(PieceReader& reader) : reader_(reader) {}

  // False where none is left to be begun.
  bool map_next() noexcept {
    const std::size_t file = next_.fetch_add(1, std::memory_order_relaxed);
    if (file >= reader_.files() || reader_.cancelled()) return false;
    reader_.map(file);
    mapped_.fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  // Or tried in vain.
  [[nodiscard]] bool all_mapped() const noexcept {
    return mapped_.load(std::memory_order_relaxed) == reader_.files();
  }

 private:
  PieceReader& reader_;
  std::atomic<std::size_t> next_{0};
  std::atomic<std::size_t> mapped_{0};
};

}  // namespace

// Owned by the reader and by each of its threads.
struct TensorReader::State {
  State(FileIo& io, std::vector<std::string> paths, const TensorReaderOptions& options,
        Runtime& runtime)
      : clock(runtime),
        reader(io, std::move(paths), options.through_mappings, options.found, runtime),
        to_map(reader),
        more_work(runtime),
        settled(runtime),
        queue(reader, options) {}

  Runtime& clock;
  const ProcessMark process;
  PieceReader reader;
  FilesToMap to_map;

  mutable Mutex mutex;
  RuntimeCondition more_work GUARDED_BY(mutex);
  RuntimeCondition settled GUARDED_BY(mutex);
  PartQueue queue GUARDED_BY(mutex);
  std::uint32_t threads GUARDED_BY(mutex) = 0;
  bool closed GUARDED_BY(mutex) = false;

  Part add(PartState part);
  Part add_in_child(PartState part);
  TakenPart take_in_child(Part index);
  void map_files();
  void work();
  bool free_memory_of(Part index) noexcept;
  bool is_settled(const PartState* part) const REQUIRES(mutex);
  void wait_settled(MutexLock& lock, const PartState* part, const Between& between) REQUIRES(mutex);
};

TensorReader::TensorReader(FileIo& io, std::vector<std::string> paths,
                           const TensorReaderOptions& options, Runtime& runtime)
    : runtime_(runtime) {
  if (options.threads < 1 || options.threads > kMaxThreads) {
    throw std::invalid_argument("threads must be between 1 and 256, not " +
                                std::to_string(options.threads));
  }
  if (options.piece_bytes == 0) throw std::invalid_argument("piece_bytes must not be 0");
  state_ = std::make_shared<State>(io, std::move(paths), options, runtime);
  const SignalsBlocked blocked;
  const MutexLock lock(state_->mutex);
  try {
    for (std::uint32_t i = 0; i < options.threads; ++i) {
      // Detached, as the engine's: a join could wait for a dead server for ever.
      runtime.start_thread("shardahead-r" + std::to_string(i), [state = state_] {
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
  let_go_elsewhere(runtime_, std::move(state_));
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

TensorReader::Part TensorReader::add_runs(std::size_t file, std::uint64_t offset, ByteRuns runs) {
  PartState part;
  part.file = file;
  part.offset = offset;
  part.length_bytes = runs.packed_bytes();
  part.lengths_bytes = {part.length_bytes};
  part.runs = std::move(runs);
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
  const Part index = queue.add(std::move(part));
  more_work.notify_all(mutex);
  return index;
}

// A forked child has one thread, and must not wait for a mutex that one of its parent's held.
TensorReader::Part TensorReader::State::add_in_child(PartState part) NO_THREAD_SAFETY_ANALYSIS {
  return queue.add(std::move(part));
}

TakenPart TensorReader::State::take_in_child(Part index) NO_THREAD_SAFETY_ANALYSIS {
  return read_alone(reader, queue.at(index));
}

void TensorReader::wait_opened(const Between& between) {
  State& state = *state_;
  if (!state.process.is_here() || !state.reader.through_mappings()) return;
  MutexLock lock(state.mutex);
  state.wait_settled(lock, nullptr, between);
}

bool TensorReader::ready(Part part) const {
  if (!state_->process.is_here()) return true;
  const MutexLock lock(state_->mutex);
  return state_->queue.at(part).settled();
}

TakenPart TensorReader::take(Part index, const Between& between) {
  State& state = *state_;
  if (!state.process.is_here()) return state.take_in_child(index);
  MutexLock lock(state.mutex);
  PartState& part = state.queue.at(index);
  if (state.threads == 0 && !part.taken && !state.closed) {
    part.taken = true;
    lock.unlock();  // what was added does not change, and whoever closes does not wait
    return read_alone(state.reader, part);
  }
  state.queue.put_first(&part);
  state.more_work.notify_all(state.mutex);
  state.wait_settled(lock, &part, between);
  state.queue.put_first(nullptr);
  if (state.closed || part.taken) throw std::logic_error("the reader of the tensors is closed");
  TakenPart taken = state.queue.take(part);
  state.more_work.notify_all(state.mutex);
  return taken;
}

void TensorReader::close() {
  if (!state_->process.is_here()) return;
  state_->reader.cancel();
  {
    const MutexLock lock(state_->mutex);
    state_->closed = true;
    state_->more_work.notify_all(state_->mutex);
    state_->settled.notify_all(state_->mutex);
  }
  for (std::size_t i = 0; state_->free_memory_of(i); ++i) continue;
}

// False behind the last part. The memory outlives the lock: there may be much to unmap.
bool TensorReader::State::free_memory_of(Part index) noexcept {
  std::shared_ptr<TensorMemory> freed;
  const MutexLock lock(mutex);
  if (index >= queue.size()) return false;
  freed = std::move(queue.at(index).result.memory);
  return true;
}

std::uint64_t TensorReader::read_bytes() const {
  if (!state_->process.is_here()) return 0;
  const MutexLock lock(state_->mutex);
  return state_->queue.read_bytes();
}

void TensorReader::State::map_files() {
  if (!reader.through_mappings()) return;
  while (to_map.map_next()) {
    const MutexLock lock(mutex);
    settled.notify_all(mutex);
  }
}

void TensorReader::State::work() {
  MutexLock lock(mutex);
  while (!closed) {
    bool failed = false;
    const auto piece = queue.next_piece(clock.now(), failed);
    if (failed) settled.notify_all(mutex);
    if (!piece) {
      more_work.wait(mutex, kUntilRung);
      continue;
    }
    lock.unlock();
    PieceResult result = read_piece(reader, *piece);
    lock.lock();
    if (!closed) {
      queue.settle(*piece, std::move(result), clock.now());
      more_work.notify_all(mutex);  // an error may have left the part nothing to begin
    }
    settled.notify_all(mutex);
  }
}

// Without a part: whether all files are open.
bool TensorReader::State::is_settled(const PartState* part) const {
  if (closed) return true;
  return part ? part->settled() : threads == 0 || to_map.all_mapped();
}

// Unchecked: the analysis does not see that `lock` is of `mutex`.
void TensorReader::State::wait_settled(MutexLock& lock, const PartState* part,
                                       const Between& between) NO_THREAD_SAFETY_ANALYSIS {
  while (!is_settled(part)) {
    settled.wait(mutex, kConsumerSlice);
    if (is_settled(part) || !between) continue;
    lock.unlock();
    between();
    lock.lock();
  }
}

}  // namespace shardahead
