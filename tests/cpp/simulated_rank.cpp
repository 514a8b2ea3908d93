#include "simulated_rank.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <stdexcept>

#include "simulated_reader.h"

namespace shardahead::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

constexpr double kLongestWaitSeconds = 300;

struct Interrupted : std::exception {};
struct Buried : std::exception {};

double seconds_of(nanoseconds duration) { return std::chrono::duration<double>(duration).count(); }

// The number that the next file gets which this process opens.
int next_descriptor() {
  const int descriptor = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ::close(descriptor);
  return descriptor;
}

// As if the folder were full: no file may grow while this exists.
class FullFolder {
 public:
  FullFolder() {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit none = before_;
    none.rlim_cur = 0;
    handler_ = ::signal(SIGXFSZ, SIG_IGN);
    ::setrlimit(RLIMIT_FSIZE, &none);
  }
  ~FullFolder() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, handler_);
  }
  FullFolder(const FullFolder&) = delete;
  FullFolder& operator=(const FullFolder&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int) = SIG_DFL;
};

}  // namespace

SimulatedNode::SimulatedNode(const Scenario& the_scenario, const SimulationOptions& the_options,
                             std::function<void(std::uint32_t)> at_step)
    : scenario(the_scenario),
      options(the_options),
      folder(true),
      trace(the_options.keeps_trace),
      threads(the_options.seed + 1, std::move(at_step)),
      cache(scenario.node, scenario.sizes_bytes),
      ledger(threads, cache, trace, static_cast<std::uint32_t>(scenario.ranks.size())),
      shared_reading(ledger, cache) {}

SimulatedRank::SimulatedRank(SimulatedNode& node, std::uint32_t index)
    : node_(node),
      index_(index),
      scenario_(node.scenario.ranks[index]),
      random_(node.options.seed * 1000 + index),
      runtime_(node.threads, index, scenario_.most_threads),
      rank_io_(node.threads, node.cache, node.trace, index, random_.next()),
      io_(rank_io_) {
  for (const std::uint64_t call : scenario_.stalls) rank_io_.stall_at(call);
}

SimulatedRank::~SimulatedRank() {
  if (dead_board_ >= 0) ::close(dead_board_);
}

void SimulatedRank::live() {
  node_.threads.sleep(scenario_.starts_after);
  try {
    if (node_.threads.burying()) return;
    for (const Fault& fault : scenario_.faults) io_.add(fault);
    if (scenario_.reading) {
      read();
    } else {
      prefetch();
    }
  } catch (const Interrupted&) {
    node_.trace.add(node_.threads.now(), index_, "interrupted");
  } catch (const Buried&) {
    cancelled_ = true;
  } catch (const IoException& exception) {
    if (!scenario_.may_fail) node_.ledger.broken(index_, exception.what());
  } catch (const std::logic_error& closed) {
    if (!cancelled_) node_.ledger.broken(index_, closed.what());
  }
  end();
}

void SimulatedRank::prefetch() {
  set_up();
  if (scenario_.consumer) consume();
  while (scenario_.stays && !engine_->done()) {
    if (node_.threads.burying()) throw Buried();
    node_.threads.sleep(milliseconds(20));
  }
  check_report();
}

void SimulatedRank::read() {
  reader_ = std::make_unique<SimulatedReader>(
      node_, SimulatedReader::Rank{index_, [this] { look_up(); }, [this] { return stopped_for_; }},
      io_, rank_io_, runtime_, random_.next());
  if (scenario_.reading->together) set_up();
  reader_->load(engine_.get());
}

void SimulatedRank::end() {
  unmap();
  const bool leaves_it = node_.options.bug == Bug::never_closed && !node_.threads.burying();
  if (reader_ && !leaves_it) reader_->end();
  // Whoever goes while its workers are busy cancels them.
  if (engine_ && !engine_->done()) node_.ledger.cancel(index_);
  engine_.reset();
  files_.reset();
  ended_ = true;
}

void SimulatedRank::check_left() {
  if (!dead_ && rank_io_.held() > 0) node_.ledger.broken(index_, "files are left open");
}

void SimulatedRank::set_up() {
  std::vector<std::string> paths;
  for (std::uint32_t file = 0; file < node_.scenario.sizes_bytes.size(); ++file) {
    paths.push_back(RankFileIo::path(file));
  }
  files_ = std::make_shared<FileTable>(io_, paths, scenario_.max_open_files);
  std::vector<PlannedFile> planned;
  for (std::size_t file = 0; file < files_->size(); ++file) {
    planned.push_back({files_->size_bytes(file), std::nullopt});
    if (!scenario_.spans.empty()) planned.back().spans = scenario_.spans[file];
  }
  plan_ = std::make_shared<const Plan>(std::move(planned), node_.scenario.plan);
  EngineOptions options;
  options.strategy = scenario_.strategy;
  options.threads = scenario_.threads;
  options.window_bytes = scenario_.window_bytes;
  options.consumer = scenario_.consumer;
  options.consumer_releases = scenario_.releases;
  options.rate_limit_bytes_per_s = node_.scenario.rate_limit_bytes_per_s;
  if (scenario_.budget_bytes) options.memory_budget = [this] { return scenario_.budget_bytes; };
  auto claims = make_claims();
  engine_ = std::make_unique<Engine>(io_, plan_, files_, std::move(claims), options, runtime_);
}

std::unique_ptr<Claims> SimulatedRank::make_claims() {
  const std::string folder =
      scenario_.board == BoardPlace::missing ? node_.folder.path("missing") : node_.folder.path("");
  std::optional<FullFolder> full;
  if (scenario_.board == BoardPlace::full) full.emplace();
  board_descriptor_ = next_descriptor();
  BoardRefusal refusal;
  std::unique_ptr<Claims> claims = BoardClaims::join(
      folder, SimulatedNode::kBoardName, plan_, share_of(*plan_, Partition::block, 0, 1), refusal,
      {node_.scenario.set_inflight_bytes, scenario_.doubts}, runtime_);
  full.reset();
  Ledger::Joining joining;
  joining.plan = plan_;
  joining.on_board = claims != nullptr;
  joining.consumer = scenario_.consumer;
  joining.rate_limit_bytes_per_s = node_.scenario.rate_limit_bytes_per_s;
  joining.complete = scenario_.most_threads > 0 && !scenario_.reading &&
                     (scenario_.consumer || scenario_.window_bytes == std::uint64_t{0});
  joining.window_bytes = [this] { return engine_ ? engine_->report().window_bytes : 0; };
  node_.ledger.join(index_, std::move(joining));
  if (!claims) {
    node_.trace.add(node_.threads.now(), index_, "no board");
    const auto ranks = static_cast<std::int64_t>(node_.scenario.ranks.size());
    claims = std::make_unique<StaticClaims>(
        plan_, share_of(*plan_, Partition::block, static_cast<std::int64_t>(index_), ranks));
    board_descriptor_ = -1;
  }
  return watched(std::move(claims), *plan_, node_.ledger, index_, node_.options.bug);
}

std::vector<SimulatedRank::Tensor> SimulatedRank::tensors(Random& random) const {
  std::vector<Tensor> found;
  for (std::uint32_t file = 0; file < plan_->files().size(); ++file) {
    const PlannedFile& planned = plan_->files()[file];
    for (const ByteRange& span :
         planned.spans.value_or(std::vector{ByteRange{0, planned.size_bytes}})) {
      for (std::uint64_t at = span.offset; at < span.end();) {
        const std::uint64_t length =
            std::min(random.between(1, scenario_.tensor_bytes), span.end() - at);
        found.push_back({file, {at, length}});
        at += length;
      }
    }
  }
  return found;
}

void SimulatedRank::consume() {
  for (const Tensor& tensor : tensors(random_)) consume(tensor);
  engine_->consumed(plan_->total_bytes(), plan_->total_bytes());
  engine_->end_consumer();
}

void SimulatedRank::consume(const Tensor& tensor) {
  VirtualThreads& threads = node_.threads;
  if (++tensors_begun_ == scenario_.pauses_at) threads.sleep(seconds(60));
  const std::uint64_t begin = plan_->position(tensor.file, tensor.range.offset);
  const std::uint64_t end = begin + tensor.range.length;
  engine_->consumed(begin, end);
  const auto asked = looked_ = threads.now();
  const auto stopped_before = stopped_for_;
  waits_for_ = plan_->blocks_under(tensor.file, tensor.range);
  const auto error = engine_->make_resident(tensor.file, tensor.range, [this] { look_up(); });
  const auto waited = threads.now() - asked - (stopped_for_ - stopped_before);
  check_wait(seconds_of(waited), tensor, error);
  if (!error) {
    // It is mapped while it is worked on; what is not there is faulted in.
    node_.cache.map(tensor.file, tensor.range, 1);
    mapped_.push_back(tensor);
    const auto ready = node_.cache.load(tensor.file, tensor.range, threads.now());
    node_.cache.use(tensor.file, tensor.range);
    threads.sleep(std::max<nanoseconds>(ready - threads.now(), nanoseconds(0)) +
                  scenario_.work_per_mebibyte * static_cast<std::int64_t>(tensor.range.length) /
                      static_cast<std::int64_t>(kMiB));
    unmap();
  }
  if (threads.burying()) throw Buried();
  engine_->consumed(end, end);
}

void SimulatedRank::look_up() {
  if (node_.threads.burying()) throw Buried();
  if (++looks_ == scenario_.interrupted_at) throw Interrupted();
  const auto now = node_.threads.now();
  node_.ledger.wait(index_, waits_for_, now - std::exchange(looked_, now));
}

void SimulatedRank::check_wait(double waited_seconds, const Tensor& tensor,
                               const std::optional<IoError>& error) {
  const auto milliseconds_waited = static_cast<std::uint64_t>(waited_seconds * 1000);
  node_.trace.add(node_.threads.now(), index_, error ? "tensor failed" : "tensor", tensor.file,
                  tensor.range.offset, milliseconds_waited);
  SimulationResult& result = node_.result;
  result.longest_wait_seconds = std::max(result.longest_wait_seconds, waited_seconds);
  if (waited_seconds > kLongestWaitSeconds) node_.ledger.broken(index_, "a consumer waits on");
  if (error && !scenario_.may_fail) {
    node_.ledger.broken(
        index_, "a tensor fails without a cause: " + error->operation + ": " + error->message());
  }
  // Elsewhere it may have been evicted since, or it is not known whether it is there.
  if (error || node_.scenario.memory_is_short || node_.scenario.blind) return;
  const BlockRange blocks = plan_->blocks_under(tensor.file, tensor.range);
  for (std::uint32_t block = blocks.begin; block < blocks.end; ++block) {
    if (node_.ledger.is_exempt(*plan_, plan_->blocks()[block])) return;
  }
  if (!node_.cache.is_there(tensor.file, tensor.range)) {
    node_.ledger.broken(index_, "a tensor is handed out that is not there");
  }
}

void SimulatedRank::check_report() {
  const Report report = engine_->report();
  SimulationResult& result = node_.result;
  result.failed_bytes += report.failed_bytes;
  result.dropped_bytes += report.dropped_bytes;
  node_.trace.add(node_.threads.now(), index_, "report", report.planned_bytes, report.read_bytes,
                  report.shared_bytes);
  if (report.settled_bytes() > report.planned_bytes) {
    node_.ledger.broken(
        index_, "more is reported than was planned: " + std::to_string(report.settled_bytes()) +
                    " of " + std::to_string(report.planned_bytes));
  }
  const bool whole = report.done && !report.cancelled && report.threads > 0 &&
                     !node_.ledger.is_in_vain() &&
                     (scenario_.consumer || scenario_.window_bytes == std::uint64_t{0});
  if (whole && report.settled_bytes() < report.planned_bytes) {
    node_.ledger.broken(index_, "bytes are neither fetched nor reported: " +
                                    std::to_string(report.planned_bytes - report.settled_bytes()));
  }
}

void SimulatedRank::step() {
  ++steps_;
  if (dead_ || ended_) return;
  if (steps_ == scenario_.killed_at) kill();
  if (steps_ == scenario_.cancelled_at) cancel();
  if (steps_ == scenario_.stopped_at && !dead_) stop();
}

// As by SIGSTOP: it keeps its locks, its claims and its mappings.
void SimulatedRank::stop() {
  ++node_.result.stops;
  const auto until = node_.threads.now() + scenario_.stopped_for;
  node_.ledger.stop(index_, until);
  stopped_for_ += scenario_.stopped_for;
  node_.threads.hold(index_, until + milliseconds(1));
  if (scenario_.continues) return;
  later(scenario_.stopped_for, [this] {
    if (!dead_ && !ended_) kill();
  });
}

// On a thread of no rank.
void SimulatedRank::later(nanoseconds wait, const std::function<void()>& what) {
  node_.threads.start(static_cast<std::uint32_t>(node_.scenario.ranks.size()), [this, wait, what] {
    node_.threads.sleep(wait);
    if (!node_.threads.burying()) what();
  });
}

void SimulatedRank::cancel() {
  if (!engine_ && !reader_) return;
  cancelled_ = true;
  node_.trace.add(node_.threads.now(), index_, "cancel");
  node_.ledger.cancel(index_);
  if (reader_) reader_->close();
  if (engine_) engine_->cancel();
}

// What the kernel does for a process that is killed: it drops its locks and its mappings.
void SimulatedRank::kill() {
  dead_ = true;
  ++node_.result.deaths;
  node_.threads.kill(index_);
  if (node_.ledger.is_on_board(index_)) {
    const std::string name = "/proc/self/fd/" + std::to_string(board_descriptor_);
    dead_board_ = ::open(name.c_str(), O_RDWR | O_CLOEXEC);
    dead_board_bytes_ = ::lseek(dead_board_, 0, SEEK_END);
  }
  unmap();
  node_.ledger.die(index_);
  if (scenario_.locks_outlive_by == nanoseconds(0)) {
    drop_locks();
  } else {
    later(scenario_.locks_outlive_by, [this] { drop_locks(); });
  }
}

void SimulatedRank::drop_locks() {
  node_.ledger.drop_locks(index_);
  if (dead_board_ < 0) return;
  struct flock all{};
  all.l_type = F_UNLCK;
  all.l_whence = SEEK_SET;
  ::fcntl(board_descriptor_, F_OFD_SETLK, &all);
}

void SimulatedRank::bury() {
  if (dead_board_ >= 0 && ::posix_fallocate(dead_board_, 0, dead_board_bytes_) != 0) {
    node_.ledger.broken(index_, "the board of the dead cannot be kept");
  }
  cancel();
  if (ended_ && reader_) reader_->end();
}

void SimulatedRank::unmap() {
  for (const Tensor& tensor : mapped_) node_.cache.map(tensor.file, tensor.range, -1);
  mapped_.clear();
}

}  // namespace shardahead::testing
