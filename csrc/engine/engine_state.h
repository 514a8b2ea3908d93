// engine_state: what an engine and its threads share, and what a worker thread does with it.
// Internal to engine.cpp, trial.cpp, worker.cpp, consumer.cpp and behind.cpp. Any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/process_mark.h"
#include "base/thread_safety.h"
#include "board/patience.h"
#include "engine/engine.h"
#include "engine/fetch.h"
#include "engine/lookout.h"
#include "node/keeping.h"
#include "node/mapped_file.h"
#include "plan/window.h"

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
        counted_blocks(plan->blocks().size()),
        failed_blocks(plan->blocks().size()) {
    figures.errors.reserve(Report::kMaxErrors);  // recording one must not need memory
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
  const ProcessMark process;
  const Runtime::Time started = runtime.now();
  StepTable steps;
  const std::shared_ptr<Consumption> consumption;
  // Read by fetchers between system calls; set once. It orders nothing: relaxed is enough.
  std::atomic<bool> cancelled{false};
  DoorbellWord trial_bell{0};  // rung once, when it is known what the trial gave
  const std::atomic<bool> never_cancelled{false};
  Lookout lookout{runtime};

  mutable Mutex mutex;
  Condition ended_or_left;
  // Given up when the last worker has ended and no consumer reports any more: the board is left.
  std::shared_ptr<Claims> claims GUARDED_BY(mutex);
  std::uint32_t running GUARDED_BY(mutex) = 0;
  ConsumerPosition consumer GUARDED_BY(mutex);
  WindowControl control GUARDED_BY(mutex);
  Runtime::Time looked_at_memory GUARDED_BY(mutex);
  std::vector<std::weak_ptr<MappedFile>> mappings GUARDED_BY(mutex);  // by file
  // The consumer's hold on pages before this position.
  std::uint64_t given_up_bytes GUARDED_BY(mutex) = 0;
  Patience patience GUARDED_BY(mutex);
  std::vector<bool> counted_blocks GUARDED_BY(mutex);  // whose bytes are in the figures
  // Of this process; with those of others once claims go.
  std::vector<bool> failed_blocks GUARDED_BY(mutex);
  Runtime::Time last_change GUARDED_BY(mutex) = runtime.now();
  std::uint32_t last_rings GUARDED_BY(mutex) = 0;
  Runtime::Time last_recovery GUARDED_BY(mutex) = runtime.now();
  Report figures GUARDED_BY(mutex);
  Runtime::Time ended GUARDED_BY(mutex);
  // Of each device (st_dev) what the trial gave; nothing while it is going on.
  std::map<std::uint64_t, std::optional<Keeping>> trials GUARDED_BY(mutex);
  // What others had found when the claims were given up.
  Keeping told_keeping GUARDED_BY(mutex) = Keeping::unknown;
  bool tried_alone GUARDED_BY(mutex) = false;   // for the consumer, without a worker
  bool trial_failed GUARDED_BY(mutex) = false;  // nothing came of that

  void work(Claims& shared) noexcept;
  void work_to_the_end(Claims& shared);
  bool work_once(Fetcher& fetcher, Claims& shared, Lookout::Worker& worker);
  bool try_mount(const File& file, const std::vector<ByteRange>& ranges,
                 std::uint64_t& tried_bytes);
  KeepingCheck try_page_of(const File& file, const std::vector<ByteRange>& ranges,
                           const std::shared_ptr<Claims>& shared);
  void try_alone() noexcept;
  bool try_first_block();
  void wait_for_trial(MutexLock& lock, const std::function<void()>& between) REQUIRES(mutex);
  [[nodiscard]] std::optional<Keeping> verdict() const REQUIRES(mutex);
  [[nodiscard]] bool is_in_vain() const;
  void wait_for_change(Claims& shared, std::uint32_t seen, Lookout::Worker& worker);
  Outcome fetch_block(Fetcher& fetcher, const Claim& claim, std::uint64_t& read_bytes) noexcept;
  Outcome try_block(Fetcher& fetcher, const Claim& claim, std::uint64_t& read_bytes);
  Outcome fail_block(std::uint32_t block, IoError error) noexcept;
  void add(std::uint32_t block, std::vector<FetchResult> results);
  void count(const FetchResult& result) REQUIRES(mutex);
  void record(IoError error) noexcept REQUIRES(mutex);
  void record_failure(std::uint32_t block) noexcept;
  void leave() noexcept;
  void leave_claims() noexcept REQUIRES(mutex);
  void give_up_claims() noexcept REQUIRES(mutex);
  template <typename Open>
  FetchResult fetch_now(const Open& open, const std::string& path, StepTable& the_steps,
                        ByteRange range, bool plainly) noexcept;
  void count_refetched(const FetchResult& result);
  void look_at_memory();
  void bring_into(const MappedFile& mapped, std::size_t file, ByteRange range);
  void ring_if_opened(Claims& shared, std::uint64_t window_bytes, const ConsumerPosition& before,
                      const ConsumerPosition& position);
  void give_up_released(std::uint64_t released_bytes);
  void drop_behind(Claims& shared, std::uint64_t keep_bytes);
  void give_up_pages(ByteRange positions);
  std::uint64_t drop_pages(ByteRange positions);
  [[nodiscard]] bool all_settled() const;
  [[nodiscard]] bool has_failed(BlockRange blocks) const;
  [[nodiscard]] std::optional<bool> is_up_to_date(std::size_t file, ByteRange range) const;
  [[nodiscard]] Report current() const REQUIRES(mutex);
  void add_shared(Report& report) const noexcept REQUIRES(mutex);
  [[nodiscard]] std::uint64_t limit();
  [[nodiscard]] double seconds() const REQUIRES(mutex);
  [[nodiscard]] static std::uint64_t wanted_bytes(const Plan& plan);
};

template <typename Open>
FetchResult Engine::State::fetch_now(const Open& open, const std::string& path,
                                     StepTable& the_steps, ByteRange range, bool plainly) noexcept {
  try {
    Fetcher fetcher(io, the_steps, Strategy::automatic, never_cancelled);
    const auto file = open();
    return plainly ? fetcher.read_plainly(*file, range) : fetcher.fetch_for_use(*file, range);
  } catch (const std::exception&) {
    FetchResult result;
    result.error = caught_error("fetch", path, range.offset);
    return result;
  }
}

}  // namespace shardahead
