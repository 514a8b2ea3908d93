// engine_state: what an engine and its threads share, and what a worker thread does with it.
// Internal to engine.cpp, worker.cpp and consumer.cpp. Any thread; the mutex guards what stands
// below it.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <set>

#include "engine.h"
#include "fetch.h"
#include "patience.h"
#include "window.h"

namespace shardahead {

using Clock = std::chrono::steady_clock;

// Owned by the engine and by each of its workers: the last one out takes it down.
struct Engine::State {
  State(FileIo& file_io, std::shared_ptr<const Plan> the_plan, std::shared_ptr<FileTable> table,
        std::unique_ptr<Claims> the_claims, const EngineOptions& the_options)
      : io(file_io),
        plan(std::move(the_plan)),
        files(std::move(table)),
        options(the_options),
        claims(std::move(the_claims)) {
    for (const std::uint32_t index : claims->wanted()) {
      figures.planned_bytes += plan->wanted_bytes(plan->blocks()[index]);
    }
    figures.strategy = to_string(options.strategy);
  }

  FileIo& io;
  const std::shared_ptr<const Plan> plan;
  const std::shared_ptr<FileTable> files;
  const EngineOptions options;
  const pid_t process = ::getpid();
  const Clock::time_point started = Clock::now();
  StepTable steps;
  // Read by fetchers between system calls; set once. It orders nothing: relaxed is enough.
  std::atomic<bool> cancelled{false};
  const std::atomic<bool> never_cancelled{false};

  mutable std::mutex mutex;  // guards everything below, save what claims does for itself
  std::condition_variable ended_or_left;
  // Given up when the last worker has ended and no consumer reports any more: the board is left.
  std::shared_ptr<Claims> claims;
  std::uint32_t running = 0;
  ConsumerPosition consumer;
  Patience patience;
  std::set<std::uint32_t> failed_blocks;  // of this process; with those of others once claims go
  Clock::time_point last_change = Clock::now();
  Clock::time_point last_recovery = Clock::now();
  Report figures;
  Clock::time_point ended;

  void work(Claims& shared);
  bool work_once(Fetcher& fetcher, Claims& shared);
  void wait_for_change(Claims& shared, std::uint32_t seen);
  Outcome fetch_block(Fetcher& fetcher, const Claim& claim, std::uint64_t& read_bytes);
  void add(const FetchResult& result);
  void record_failure(std::uint32_t block);
  void leave();
  void leave_claims();
  void give_up_claims();
  template <typename Open>
  std::optional<IoError> fetch_now(const Open& open, StepTable& the_steps, ByteRange range,
                                   bool plainly);
  [[nodiscard]] bool has_failed(BlockRange blocks) const;
  [[nodiscard]] bool is_resident(std::size_t file, ByteRange range) const;
  [[nodiscard]] Report current() const;
  [[nodiscard]] std::uint64_t limit() const;
  [[nodiscard]] double seconds() const;
};

}  // namespace shardahead
