// engine_state: what an engine and its threads share, and what a worker thread does with it.
// Internal to engine.cpp, trial.cpp, worker.cpp, consumer.cpp and behind.cpp. Any thread; the mutex
// guards what stands below it.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <vector>

#include "engine.h"
#include "fetch.h"
#include "keeping.h"
#include "mapped_file.h"
#include "patience.h"
#include "window.h"

namespace shardahead {

// Owned by the engine and by each of its workers: the last one out takes it down.
struct Engine::State {
  State(FileIo& file_io, std::shared_ptr<const Plan> the_plan, std::shared_ptr<FileTable> table,
        std::unique_ptr<Claims> the_claims, const EngineOptions& the_options, Runtime& the_runtime)
      : io(file_io),
        runtime(the_runtime),
        plan(std::move(the_plan)),
        files(std::move(table)),
        options(the_options),
        consumption(std::make_shared<Consumption>()),
        claims(std::move(the_claims)),
        control(options.window_bytes, wanted_bytes(*plan),
                !options.consumer           ? Follows::no_one
                : options.consumer_releases ? Follows::releasing_consumer
                                            : Follows::holding_consumer),
        mappings(files->size()),
        counted_blocks(plan->blocks().size()) {
    for (const std::uint32_t index : claims->wanted()) {
      figures.planned_bytes += plan->wanted_bytes(plan->blocks()[index]);
    }
    figures.strategy = to_string(options.strategy);
    look_at_memory();
    if (options.consumer) claims->report_consumer({});
  }

  FileIo& io;
  Runtime& runtime;
  const std::shared_ptr<const Plan> plan;
  const std::shared_ptr<FileTable> files;
  const EngineOptions options;
  const pid_t process = ::getpid();
  const Runtime::Time started = runtime.now();
  StepTable steps;
  const std::shared_ptr<Consumption> consumption;
  // Read by fetchers between system calls; set once. It orders nothing: relaxed is enough.
  std::atomic<bool> cancelled{false};
  DoorbellWord trial_bell{0};  // rung once, when it is known what the trial gave
  const std::atomic<bool> never_cancelled{false};

  mutable std::mutex mutex;  // guards everything below, save what claims does for itself
  std::condition_variable ended_or_left;
  // Given up when the last worker has ended and no consumer reports any more: the board is left.
  std::shared_ptr<Claims> claims;
  std::uint32_t running = 0;
  ConsumerPosition consumer;
  WindowControl control;
  Runtime::Time looked_at_memory;
  std::vector<std::weak_ptr<MappedFile>> mappings;  // by file
  std::uint64_t given_up_bytes = 0;  // the consumer's hold on pages before this position
  Patience patience;
  std::vector<bool> counted_blocks;       // whose bytes are in the figures
  std::set<std::uint32_t> failed_blocks;  // of this process; with those of others once claims go
  Runtime::Time last_change = runtime.now();
  Runtime::Time last_recovery = runtime.now();
  Report figures;
  Runtime::Time ended;
  // Of each device (st_dev) what the trial gave; nothing while it is going on.
  std::map<std::uint64_t, std::optional<Keeping>> trials;
  Keeping told_keeping = Keeping::unknown;  // what others had found when the claims were given up
  bool tried_alone = false;                 // for the consumer, without a worker

  void work(Claims& shared);
  bool work_once(Fetcher& fetcher, Claims& shared);
  bool try_mount(const File& file, const std::vector<ByteRange>& ranges,
                 std::uint64_t& tried_bytes);
  KeepingCheck try_page_of(const File& file, const std::vector<ByteRange>& ranges,
                           const std::shared_ptr<Claims>& shared);
  void try_alone();
  void wait_for_trial(std::unique_lock<std::mutex>& lock, const std::function<void()>& between);
  [[nodiscard]] std::optional<Keeping> verdict() const;
  [[nodiscard]] bool is_in_vain() const;
  void wait_for_change(Claims& shared, std::uint32_t seen);
  Outcome fetch_block(Fetcher& fetcher, const Claim& claim, std::uint64_t& read_bytes);
  void add(std::uint32_t block, const std::vector<FetchResult>& results);
  void record_failure(std::uint32_t block);
  void leave();
  void leave_claims();
  void give_up_claims();
  template <typename Open>
  FetchResult fetch_now(const Open& open, StepTable& the_steps, ByteRange range, bool plainly);
  void count_refetched(const FetchResult& result);
  void look_at_memory();
  void give_up_released(std::uint64_t released_bytes);
  void drop_behind(Claims& shared, std::uint64_t keep_bytes);
  void give_up_pages(ByteRange positions);
  std::uint64_t drop_pages(ByteRange positions);
  [[nodiscard]] bool all_settled() const;
  [[nodiscard]] bool has_failed(BlockRange blocks) const;
  [[nodiscard]] bool is_resident(std::size_t file, ByteRange range) const;
  [[nodiscard]] Report current() const;
  [[nodiscard]] std::uint64_t limit();
  [[nodiscard]] double seconds() const;
  [[nodiscard]] static std::uint64_t wanted_bytes(const Plan& plan);
};

}  // namespace shardahead
