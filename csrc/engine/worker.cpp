#include "engine/worker.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

#include "engine/fetch.h"
#include "engine/noting.h"
#include "plan/request_cost.h"

namespace shardahead {
namespace {

// One thread.
class Worker {
 public:
  Worker(EngineState& state, Claims& claims)
      : state_(state),
        plan_(*state.job.plan),
        claims_(claims),
        fetcher_(state.job.io, state.steps, state.job.options.strategy, state.crew.cancelled()),
        lookout_(state.lookout) {}

  void work_to_the_end();

 private:
  bool work_once();
  bool take_and_bring_in(std::uint64_t end);
  void wait_for_change(std::uint32_t seen, std::chrono::nanoseconds pause);
  Outcome bring_in(const Claim& claim, std::uint64_t& read_bytes) noexcept;
  Outcome try_to_bring_in(const Claim& claim, std::uint64_t& read_bytes);
  [[nodiscard]] bool goes_on(std::size_t number) const;
  bool try_mount(const File& file, const std::vector<ByteRange>& ranges,
                 const std::function<void()>& before_reads);

  EngineState& state_;
  const Plan& plan_;
  Claims& claims_;
  Fetcher fetcher_;
  Lookout::Worker lookout_;
};

void Worker::work_to_the_end() {
  std::chrono::nanoseconds counted{0};
  for (bool more = true; more;) {
    more = work_once();
    const std::chrono::nanoseconds used = state_.job.runtime.thread_cpu_time();
    state_.tally.add_cpu_seconds(std::chrono::duration<double>(used - counted).count());
    counted = used;
  }
}

// Takes one block, or waits for one. False at the end.
bool Worker::work_once() {
  lookout_.look();
  const std::uint32_t seen = doorbell_seen(claims_.doorbell());
  if (state_.crew.is_cancelled() || state_.trial.is_in_vain(&claims_)) return false;
  state_.ahead.look_at_memory();
  const std::uint64_t end = state_.ahead.limit(claims_);
  const auto pause = state_.pace.pay(claims_);
  if (pause == pause.zero() && take_and_bring_in(end)) return true;
  // Without a consumer nothing moves the window: its end is the end.
  if (claims_.settled(state_.job.options.consumer ? kNoEnd : end)) return false;
  wait_for_change(seen, pause);
  return true;
}

// What has been paid for is settled in any case.
bool Worker::take_and_bring_in(std::uint64_t end) {
  std::uint64_t read_bytes = 0;
  const auto claim = claims_.take(end);
  if (claim) {
    lookout_.work();
    const std::uint64_t wanted_bytes = plan_.wanted_bytes(plan_.blocks()[claim->block]);
    state_.tally.add_claimed(wanted_bytes);
    const Outcome outcome = bring_in(*claim, read_bytes);
    state_.tally.remove_claimed(wanted_bytes);
    // Before the others are rung: they look at what is paid.
    state_.pace.settle(claims_, read_bytes);
    claims_.settle(*claim, outcome, read_bytes);
    return true;
  }
  state_.pace.settle(claims_, read_bytes);
  return false;
}

// The dead are looked for by the one that waits for the doorbell, or until a block may be read.
void Worker::wait_for_change(std::uint32_t seen, std::chrono::nanoseconds pause) {
  const bool paused = pause > pause.zero();
  const auto slice = paused ? std::min<std::chrono::nanoseconds>(pause, kRecoveryInterval)
                            : std::chrono::nanoseconds(kRecoveryInterval);
  if (!lookout_.wait(claims_.doorbell(), seen, slice)) return;
  const auto stalled = state_.stalls.look(claims_.doorbell(), state_.job.runtime.now());
  if (stalled) claims_.recover(*stalled);
}

// A claim is settled in any case: one that stays would hold up all who wait for the block.
Outcome Worker::bring_in(const Claim& claim, std::uint64_t& read_bytes) noexcept {
  const Block& block = plan_.blocks()[claim.block];
  try {
    return try_to_bring_in(claim, read_bytes);
  } catch (...) {
    IoError error = caught_error("fetch", state_.job.files->path(block.file), block.range.offset);
    error.offset = block.range.offset;
    state_.stalls.note_change(state_.job.runtime.now());
    state_.tally.add_failed(claim.block, plan_.wanted_bytes(block), std::move(error));
    return Outcome::failed;
  }
}

// Whether all of what follows the block in its file is wanted, as far as kernels read ahead.
bool Worker::goes_on(std::size_t number) const {
  constexpr std::uint64_t kFarBytes = 16 * kMiB;
  const std::vector<Block>& blocks = plan_.blocks();
  const Block& block = blocks[number];
  if (!plan_.files()[block.file].spans) return true;
  for (std::size_t i = number + 1; i < blocks.size(); ++i) {
    const Block& next = blocks[i];
    if (next.file != block.file || next.range.offset >= block.range.end() + kFarBytes) break;
    if (plan_.wanted_bytes(next) != next.range.length) return false;
  }
  return true;
}

Outcome Worker::try_to_bring_in(const Claim& claim, std::uint64_t& read_bytes) {
  const Block& block = plan_.blocks()[claim.block];
  FileTable& files = *state_.job.files;
  const std::shared_ptr<const File> file = files.acquire(block.file);
  const auto requests =
      requests_for(claims_.ranges(claim), std::max(state_.requests.gap_bytes(), page_bytes()));
  const auto note = [&] { note_resident(state_.job.io, plan_, claims_, *file, claim.block); };
  if (!try_mount(*file, requests, note)) return Outcome::released;
  Outcome outcome = Outcome::done;
  const auto began = state_.job.runtime.now();
  const bool whole = requests == std::vector{block.range} && goes_on(claim.block);
  const auto beyond = whole ? Fetcher::Beyond::wanted : Fetcher::Beyond::unwanted;
  std::vector<FetchResult> results = fetcher_.fetch(*file, requests, beyond, note);
  const auto took = state_.job.runtime.now() - began;
  std::uint64_t noted_bytes = claims_.noted_resident(claim.block).value_or(block.range.length);
  std::uint64_t fetched_bytes = 0;
  for (std::size_t i = 0; i < results.size(); ++i) {
    FetchResult& result = results[i];
    fetched_bytes += result.read_bytes;
    count_noted(result, noted_bytes, claim.done_before);
    if (result.advice_dropped) files.renew(block.file, *file);
    read_bytes += result.read_bytes;
    // The plan counts what this participant asked for.
    count_at_most(result, plan_.wanted_bytes({block.file, requests[i]}));
    if (result.error) outcome = Outcome::failed;
    if (result.cancelled) outcome = Outcome::released;
  }
  if (outcome == Outcome::done) state_.requests.note(fetched_bytes, took);
  state_.stalls.note_change(state_.job.runtime.now());
  state_.tally.add(claim.block, std::move(results), outcome);
  return outcome;
}

// False where bringing it in would be in vain.
bool Worker::try_mount(const File& file, const std::vector<ByteRange>& ranges,
                       const std::function<void()>& before_reads) {
  if (!state_.job.options.tries_mounts || ranges.empty()) return true;
  std::uint64_t tried_bytes = 0;
  const auto began = state_.job.runtime.now();
  const bool useful = state_.trial.try_mount(file, ranges, &claims_, tried_bytes, before_reads);
  // A page by itself, where it was read: what a request costs.
  state_.requests.note(tried_bytes, state_.job.runtime.now() - began);
  return useful;
}

}  // namespace

// The others and the consumer go on without it.
void work(EngineState& state, std::shared_ptr<Claims> claims) noexcept {
  try {
    Worker(state, *claims).work_to_the_end();
  } catch (...) {
    state.tally.record(caught_error("work", "", 0));
  }
  claims.reset();
  state.crew.leave();
}

}  // namespace shardahead
