// engine: the worker threads that carry out a plan, strictly in order. It knows nothing of Python
// or of how the ranks share the blocks. Public methods are for any thread; none of them waits for a
// system call of a worker, save wait() itself. In a forked child an engine is inert.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/byte_range.h"
#include "base/error.h"
#include "base/report.h"
#include "base/runtime.h"
#include "base/waiting.h"
#include "board/claims.h"
#include "engine/held_bytes.h"
#include "engine/touched_pages.h"
#include "node/file_io.h"
#include "node/file_table.h"
#include "node/keeping.h"
#include "node/mapped_file.h"
#include "plan/byte_runs.h"
#include "plan/plan.h"
#include "plan/strategy.h"
#include "plan/window.h"

namespace shardahead {

struct EngineOptions {
  Strategy strategy = Strategy::automatic;
  std::uint32_t threads = 4;
  // Bytes of the checkpoint that may be ahead of the consumers; 0 is no limit, nothing lets memory
  // decide, again and again while it runs.
  std::optional<std::uint64_t> window_bytes = 0;
  // A consumer will call consumed(). Without one the prefetch ends at the end of the window.
  bool consumer = false;
  // It lets go of tensors as it passes them, so that they can be dropped; else the window is small.
  bool consumer_releases = true;
  // What workers may read on average, and a burst besides (rate_limit.h); 0 is no limit. All that
  // have the same and share a board share it. Never holds up a consumer that reads by itself.
  std::uint64_t rate_limit_bytes_per_s = 0;
  // Find out before the first block whether the mounts keep pages; without that it is unknown.
  bool tries_mounts = true;
  // Asked again and again, where it decides.
  BudgetBytes memory_budget = nullptr;
  // Where given, it is told what the consumer uses of what it holds.
  std::shared_ptr<TouchedPages> touched = nullptr;
};

struct EngineState;

class Engine {
 public:
  // Starts at once. Throws std::invalid_argument where an option is out of range. `io` and
  // `runtime` must outlive the process's last thread.
  Engine(FileIo& io, std::shared_ptr<const Plan> plan, std::shared_ptr<FileTable> files,
         std::unique_ptr<Claims> claims, const EngineOptions& options,
         Runtime& runtime = system_runtime());
  // Cancels and returns at once: a worker that sits in a read on a dead server keeps what it needs
  // alive and ends by itself when the read does, or with the process.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // True as soon as every worker has ended; false after `timeout`.
  bool wait(std::chrono::nanoseconds timeout);
  // Takes no further block; the ones in flight end at their next system call.
  void cancel();
  [[nodiscard]] bool done() const;
  [[nodiscard]] bool cancelled() const;
  [[nodiscard]] Progress progress() const;
  [[nodiscard]] Report report() const;

  // The consumer has taken what lies before `position_bytes` (Plan::position) and next needs the
  // bytes up to `needed_bytes`: the window follows, and never ends before them. Where memory is
  // short, what all consumers of the node have released is dropped: of this one nothing from
  // `releasable_bytes` on.
  void consumed(std::uint64_t position_bytes, std::uint64_t needed_bytes,
                std::uint64_t releasable_bytes = kNoEnd);
  // The consumer is done: no window waits for it. Whether it was the last one of this node.
  bool end_consumer();
  // Whether the mounts of the files keep what is brought in: else the prefetch has ended by itself.
  // Waits until that is found out, for 10 s at most.
  Keeping keeping(const Between& between = {});
  // What this prefetch was to bring in was wrong: said to the others of this node.
  void tell_misled();
  // Whether another has said so since this one began.
  [[nodiscard]] bool told_misled() const;
  // For `expected` ranks that read by themselves, at about the same time, files whose pages go at
  // every open(). Called once this one has opened all of them, it comes back when the others have
  // as well, or when they are waited for no longer (patience.h): what was read before would have to
  // be read again. At once where it is not known what others do.
  void meet(std::uint32_t expected, const Between& between = {});
  // The file as the consumer may map it, one mapping as long as anyone has it. Throws IoException.
  std::shared_ptr<MappedFile> map(std::size_t file);
  // A part of it, for the consumer: what lies behind it is not dropped before it has been let go.
  // Throws std::invalid_argument for a range that is not in the file, and IoException where a page
  // of another user's file cannot be read: of those nothing else tells before they are used. That
  // is found out for the parts of it that `expected` has, where it is given: what was brought in.
  std::unique_ptr<HeldBytes> hold(std::size_t file, std::shared_ptr<MappedFile> mapped,
                                  ByteRange range);
  // The same of runs, from the first byte, at `offset`, to the last: what lies between is not
  // looked at.
  std::unique_ptr<HeldBytes> hold(std::size_t file, std::shared_ptr<MappedFile> mapped,
                                  std::uint64_t offset, const ByteRuns& runs,
                                  const std::optional<std::vector<ByteRange>>& expected = {});

  // Has these ranges on their way ahead of all else, and does not wait for them: what the consumer
  // is known to touch first. Nothing under a rate limit, or after the end. Throws IoException where
  // the file cannot be opened.
  void ask_early(std::size_t file, const std::vector<ByteRange>& ranges);

  // Comes back when the bytes of the range can be read without waiting, or with the error that
  // stands in the way. Waits for the blocks under it, whoever on this node has them; reads by
  // itself where they do not move (patience.h), where it is not known what others do, after the end
  // and after cancel(). `between` is called while it waits, save while it touches what counts as
  // resident.
  std::optional<IoError> make_resident(std::size_t file, ByteRange range,
                                       const Between& between = {});
  // The same, and waits for nobody's blocks: for a little that is needed before its turn.
  std::optional<IoError> make_resident_now(std::size_t file, ByteRange range,
                                           const Between& between = {});
  // The same of runs whose first byte is at `offset`. What cannot be read between them is no error.
  std::optional<IoError> make_resident(std::size_t file, std::uint64_t offset, const ByteRuns& runs,
                                       const Between& between = {});

 private:
  enum class Wait { for_blocks, for_nobody };
  std::optional<IoError> make_resident(std::size_t file, ByteRange range, Wait wait,
                                       const Between& between);

  std::shared_ptr<EngineState> state_;
};

}  // namespace shardahead
