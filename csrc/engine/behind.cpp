// What becomes of the bytes that the consumers have passed: where memory is short they are dropped,
// before the kernel has to choose between them and what was brought in and not read yet. It would
// choose the latter: pages that were read through a mapping count as active. A window alone gives
// 1.5 times the bytes there, window and dropping 1.00.
#include <algorithm>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "engine/engine_state.h"

namespace shardahead {
namespace {

constexpr auto kBetweenLooks = std::chrono::milliseconds(500);
// A fault maps the pages around it as well, 16 of them, aligned.
constexpr std::uint64_t kFaultAroundBytes = 64 * kKiB;

}  // namespace

std::uint64_t Engine::State::wanted_bytes(const Plan& plan) {
  std::uint64_t bytes = 0;
  for (const Block& block : plan.blocks()) bytes += plan.wanted_bytes(block);
  return bytes;
}

void Engine::State::look_at_memory() {
  if (!options.memory_budget) return;
  {
    const MutexLock lock(mutex);
    const auto now = runtime.now();
    if (now - looked_at_memory < kBetweenLooks) return;
    looked_at_memory = now;
  }
  std::optional<std::uint64_t> budget_bytes;
  try {
    budget_bytes = options.memory_budget();
  } catch (const std::bad_alloc&) {
    return;  // looked at again soon
  }
  const MutexLock lock(mutex);
  control.set_budget(budget_bytes, runtime.now());
}

void Engine::consumed(std::uint64_t position_bytes, std::uint64_t needed_bytes,
                      std::uint64_t releasable_bytes) {
  State& state = *state_;
  if (!state.process.is_here()) return;
  std::shared_ptr<Claims> shared;
  Window window;
  {
    const MutexLock lock(state.mutex);
    shared = state.claims;
    window = state.control.window();
  }
  const std::uint64_t end = state.plan->total_bytes();
  const ConsumerPosition position = state.consumption->pass(
      std::min(position_bytes, end), std::min(needed_bytes, end),
      window.ahead_bytes > 0 ? window.ahead_bytes : kNoEnd, releasable_bytes);
  ConsumerPosition before;
  {
    const MutexLock lock(state.mutex);
    before = std::exchange(state.consumer, position);
  }
  if (!shared || !state.options.consumer || cancelled()) return;
  // What a process has mapped is not dropped: so first its own hold on it goes.
  if (window.keep_bytes) state.give_up_released(position.released_bytes);
  shared->report_consumer(position);
  if (window.ahead_bytes > 0) state.ring_if_opened(*shared, window.ahead_bytes, before, position);
  if (window.keep_bytes) state.drop_behind(*shared, *window.keep_bytes);
}

// Where this report moves the end of the window past the beginning of a block, whoever waits for
// one is woken; else nothing is new for them, and there are many tensors to a block. Of several
// ranks that report at the same time the last one sees the others' positions, and rings.
void Engine::State::ring_if_opened(Claims& shared, std::uint64_t window_bytes,
                                   const ConsumerPosition& before,
                                   const ConsumerPosition& position) {
  const ConsumerPosition slowest = shared.slowest_consumer(runtime.now()).value_or(position);
  const std::uint64_t end = window_end(window_bytes, slowest);
  const auto begin_of = [&](const Block& block) { return plan->position(block); };
  const auto opened = std::ranges::lower_bound(
      plan->blocks(), window_end(window_bytes, slower_of(before, slowest)), {}, begin_of);
  if (opened != plan->blocks().end() && begin_of(*opened) < end) {
    ring(shared.doorbell());
  } else {
    runtime.ring_unheard(shared.doorbell());
  }
}

bool Engine::end_consumer() {
  State& state = *state_;
  if (!state.process.is_here()) return false;
  std::shared_ptr<Claims> shared;
  {
    const MutexLock lock(state.mutex);
    shared = state.claims;
  }
  return !shared || shared->end_consumer();
}

void Engine::State::give_up_released(std::uint64_t released_bytes) {
  std::uint64_t from = 0;
  {
    const MutexLock lock(mutex);
    if (released_bytes <= given_up_bytes) return;
    from = given_up_bytes - std::min(given_up_bytes, kFaultAroundBytes);
    given_up_bytes = released_bytes;
  }
  give_up_pages({from, released_bytes - from});
}

void Engine::State::drop_behind(Claims& shared, std::uint64_t keep_bytes) {
  const auto slowest = shared.slowest_consumer(runtime.now());
  if (!slowest) return;
  const std::uint64_t until =
      slowest->released_bytes - std::min(slowest->released_bytes, keep_bytes);
  std::uint64_t dropped = 0;
  if (const auto range = shared.take_dropping(until)) dropped += drop_pages(*range);
  for (const ByteRange& late : consumption->take_late()) {
    give_up_pages(late);
    if (late.end() <= until) dropped += drop_pages(late);
  }
  const MutexLock lock(mutex);
  figures.dropped_bytes += dropped;
}

// Only what no one holds: in a private mapping written pages would return to the file's contents.
void Engine::State::give_up_pages(ByteRange positions) {
  for (const ByteRange& part : consumption->not_held(positions)) {
    for (const auto& [file, range] : plan->files_under(part)) {
      std::shared_ptr<MappedFile> mapped;
      {
        const MutexLock lock(mutex);
        mapped = mappings[file].lock();
      }
      if (mapped) mapped->give_up(range);
    }
  }
}

// Pages that are mapped by anyone stay, and so do those that lie in the range only in part: so it
// begins where a huge page does.
std::uint64_t Engine::State::drop_pages(ByteRange positions) {
  std::uint64_t bytes = 0;
  for (const auto& [file, range] : plan->files_under(positions)) {
    try {
      const auto opened = files->acquire(file);
      const std::uint64_t begin = align_down(range.offset, kHugePageBytes);
      if (io.fadvise_dontneed(opened->descriptor(), {begin, range.end() - begin}) == 0) {
        bytes += range.length;
      }
    } catch (const IoException&) {
      continue;  // gone: nothing to drop
    }
  }
  return bytes;
}

std::shared_ptr<MappedFile> Engine::map(std::size_t file) {
  State& state = *state_;
  if (!state.process.is_here()) {
    return std::make_shared<MappedFile>(*File::open(state.io, state.files->path(file)));
  }
  const auto already = [&] {
    const MutexLock lock(state.mutex);
    return state.mappings.at(file).lock();
  };
  if (auto mapped = already()) return mapped;
  // Without the lock: mmap may wait for the server.
  auto mapped = std::make_shared<MappedFile>(*state.files->acquire(file));
  std::shared_ptr<MappedFile> first;
  const MutexLock lock(state.mutex);
  first = state.mappings[file].lock();
  if (first) return first;
  state.mappings[file] = mapped;
  return mapped;
}

std::unique_ptr<HeldBytes> Engine::hold(std::size_t file, std::shared_ptr<MappedFile> mapped,
                                        ByteRange range) {
  if (range.offset > mapped->size_bytes() || range.length > mapped->size_bytes() - range.offset) {
    throw std::invalid_argument("bytes " + std::to_string(range.offset) + " to " +
                                std::to_string(range.end()) + " are not in a file of " +
                                std::to_string(mapped->size_bytes()) + " bytes");
  }
  State& state = *state_;
  const bool forked = !state.process.is_here();
  state.bring_into(*mapped, file, range);
  return std::make_unique<HeldBytes>(
      std::move(mapped), range, forked ? nullptr : state.consumption,
      state.plan->position(static_cast<std::uint32_t>(file), range.offset));
}

// Whether the pages of another's file are up to date is told to no one: there a page that cannot be
// read is found by mapping all of them, which their use would do, but with a signal.
void Engine::State::bring_into(const MappedFile& mapped, std::size_t file, ByteRange range) {
  if (files->status(file).owned_or_writable || mapped.bring_in(range) != -EFAULT) return;
  const auto open = [&] { return File::open(io, files->path(file)); };
  StepTable own_steps;  // neither these nor the open files are a forked child's
  FetchResult result = fetch_now(open, files->path(file), own_steps, range, true);
  if (!result.error && mapped.bring_in(range) == -EFAULT) {
    result.error = {EIO, "madvise", files->path(file), range.offset, ""};
  }
  if (result.error) throw IoException(std::move(*result.error));
}

HeldBytes::HeldBytes(std::shared_ptr<MappedFile> file, ByteRange range,
                     std::shared_ptr<Consumption> consumption, std::uint64_t position)
    : file_(std::move(file)),
      range_(range),
      consumption_(std::move(consumption)),
      position_(position) {
  if (consumption_) consumption_->hand_out({position_, range_.length});
}

HeldBytes::~HeldBytes() {
  // In a forked child another thread of the parent may have held its mutex.
  if (consumption_ && process_.is_here()) consumption_->release({position_, range_.length});
  MappedFile::let_go(std::move(file_));
}

}  // namespace shardahead
