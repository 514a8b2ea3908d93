// prefetch: what Python holds of a running prefetch.
#include <pybind11/functional.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <functional>
#include <tuple>
#include <utility>

#include "base/in_parallel.h"
#include "base/let_go.h"
#include "base/process_mark.h"
#include "bindings/bindings.h"
#include "bindings/file_mapping.h"
#include "board/board.h"
#include "board/board_name.h"
#include "engine/engine.h"
#include "node/memory_budget.h"

namespace shardahead {
namespace {

constexpr const char* kPartitions = "dynamic, block, file";

// How the blocks are shared, and why not as was asked for, if so.
struct Sharing {
  std::string partition;
  std::string reason;
};

// Local rank and local size, asked for where a fixed share rests on them: to find out whether they
// are true may take a while.
using FixedShare = std::function<std::pair<std::int64_t, std::int64_t>()>;

struct SharingOptions {
  std::string partition;
  std::string board_folder;
  BoardOptions board;
  std::int64_t local_rank = 0;
  std::int64_t local_size = 1;
};

std::unique_ptr<Claims> make_claims(const FileTable& files, const std::shared_ptr<const Plan>& plan,
                                    SharingOptions& options, const FixedShare& fixed_share,
                                    Sharing& sharing) {
  sharing.partition = options.partition;
  require_local_rank(options.local_rank, options.local_size);  // also where it is not needed
  if (options.partition == "dynamic") {
    BoardRefusal refusal;
    auto board = BoardClaims::join(options.board_folder, board_name(files, *plan), plan,
                                   share_of(*plan, Partition::block, 0, 1), refusal, options.board);
    if (board) return board;
    sharing = {"block", "no shared memory: " + refusal.reason};
  }
  const Partition dealt = parse_name("partition", sharing.partition, kPartitions,
                                     [](const auto& name) { return partition_from(name); });
  if (fixed_share) {
    std::tie(options.local_rank, options.local_size) = fixed_share();
    require_local_rank(options.local_rank, options.local_size);
  }
  return std::make_unique<StaticClaims>(
      plan, share_of(*plan, dealt, options.local_rank, options.local_size));
}

// What Python holds of a running prefetch.
class Prefetch {
 public:
  Prefetch(const std::vector<std::string>& paths, const Spans& spans, std::uint64_t block_bytes,
           const std::string& partition, const std::string& board_folder,
           std::uint64_t inflight_bytes, std::int64_t local_rank, std::int64_t local_size,
           std::uint64_t rate_limit_bytes_per_s, const std::string& strategy, std::uint32_t threads,
           std::optional<std::uint64_t> window_bytes,
           std::optional<std::uint64_t> memory_budget_bytes, bool consumer, bool consumer_releases,
           bool tries_mounts, bool doubted, std::shared_ptr<TouchedPages> touched,
           const FixedShare& fixed_share) {
    EngineOptions options;
    options.strategy = parse_name("strategy", strategy, "auto, populate, fadvise, readahead, pread",
                                  [](const auto& name) { return strategy_from(name); });
    options.threads = threads;
    options.rate_limit_bytes_per_s = rate_limit_bytes_per_s;
    options.window_bytes = window_bytes;
    options.consumer = consumer;
    options.consumer_releases = consumer_releases;
    options.tries_mounts = tries_mounts;
    options.touched = std::move(touched);
    options.memory_budget = [given = memory_budget_bytes] {
      return given ? given : memory_budget().budget_bytes;
    };
    files_ = std::make_shared<FileTable>(system_file_io(), paths, default_max_open_files(),
                                         kLookupThreads);
    std::vector<std::uint64_t> sizes;
    sizes.reserve(files_->size());
    for (std::size_t i = 0; i < files_->size(); ++i) sizes.push_back(files_->size_bytes(i));
    plan_ = make_plan(sizes, spans, block_bytes);
    SharingOptions sharing{
        partition, board_folder, {inflight_bytes, doubted}, local_rank, local_size};
    auto claims = make_claims(*files_, plan_, sharing, fixed_share, sharing_);
    // Who shares nothing has a part of its own.
    if (rate_limit_bytes_per_s != 0 && sharing_.partition != "dynamic") {
      options.rate_limit_bytes_per_s = std::max<std::uint64_t>(
          1, rate_limit_bytes_per_s / static_cast<std::uint64_t>(sharing.local_size));
    }
    engine_ = std::make_shared<Engine>(system_file_io(), plan_, files_, std::move(claims), options);
  }

  // Cancels, and waits for nothing: closing a file may take as long as its server likes.
  ~Prefetch() {
    engine_.reset();
    let_go_elsewhere(system_runtime(), std::move(files_));
  }
  Prefetch(const Prefetch&) = delete;
  Prefetch& operator=(const Prefetch&) = delete;

  [[nodiscard]] const Sharing& sharing() const { return sharing_; }
  bool wait(double seconds) {
    return engine_->wait(std::chrono::nanoseconds(to_nanoseconds(seconds)));
  }
  void cancel() { engine_->cancel(); }
  [[nodiscard]] bool done() const { return engine_->done(); }
  [[nodiscard]] bool cancelled() const { return engine_->cancelled(); }
  [[nodiscard]] Progress progress() const { return engine_->progress(); }
  [[nodiscard]] Report report() const { return engine_->report(); }

  // `held_from_file`: of this file and those after it nothing is released, whatever was consumed.
  void consumed(std::uint32_t file, std::uint64_t consumed_offset, std::uint64_t needed_offset,
                std::optional<std::uint32_t> held_from_file) {
    engine_->consumed(plan_->position(checked(file), consumed_offset),
                      plan_->position(file, needed_offset),
                      held_from_file ? plan_->position(checked(*held_from_file), 0) : kNoEnd);
  }

  bool end_consumer() { return engine_->end_consumer(); }
  void meet(std::uint32_t expected) { engine_->meet(expected, check_signals); }
  const char* keeping() { return to_string(engine_->keeping(check_signals)); }

  [[nodiscard]] std::uint64_t size_bytes(std::uint32_t file) const {
    return files_->size_bytes(checked(file));
  }

  FileMapping map(std::uint32_t file) {
    // A forked child must not wait for a mutex of the open files.
    auto opened = process_.is_here() ? files_->acquire(checked(file))
                                     : File::open(system_file_io(), files_->path(checked(file)));
    auto mapped = engine_->map(file);
    const bool in_part = process_.is_here() && plan_->files()[file].spans.has_value();
    return {engine_, file, std::move(opened), std::move(mapped), in_part};
  }

  void fetch_runs_now(std::uint32_t file, std::uint64_t offset, const ByteRuns& runs) {
    if (auto error = engine_->make_resident(checked(file), offset, runs, check_signals)) {
      throw IoException(std::move(*error));
    }
  }

  void ask_early(std::uint32_t file,
                 const std::vector<std::pair<std::uint64_t, std::uint64_t>>& ranges) {
    std::vector<ByteRange> asked;
    asked.reserve(ranges.size());
    for (const auto& [offset, length] : ranges) asked.push_back({offset, length});
    engine_->ask_early(checked(file), asked);
  }
  void fetch_now(std::uint32_t file, std::uint64_t offset, std::uint64_t length) {
    bring_in(file, {offset, length}, check_signals);
  }

  // Without a wait for who brings in what lies around it.
  void fetch_before_its_turn(std::uint32_t file, std::uint64_t offset, std::uint64_t length) {
    if (auto error = engine_->make_resident_now(checked(file), {offset, length}, check_signals)) {
      throw IoException(std::move(*error));
    }
  }

  // False, at once, where another of this node was misled: then these bytes may be wrong as well.
  bool fetch_unless_misled(std::uint32_t file, std::uint64_t offset, std::uint64_t length) {
    struct Misled : std::exception {};
    const auto look = [this] {
      if (engine_->told_misled()) throw Misled();
      check_signals();
    };
    try {
      look();
      bring_in(file, {offset, length}, look);
      return true;
    } catch (const Misled&) {
      return false;
    }
  }
  void tell_misled() { engine_->tell_misled(); }
  [[nodiscard]] bool told_misled() const { return engine_->told_misled(); }

 private:
  void bring_in(std::uint32_t file, ByteRange range, const Between& between) {
    if (auto error = engine_->make_resident(checked(file), range, between)) {
      throw IoException(std::move(*error));
    }
  }

  static std::int64_t to_nanoseconds(double seconds) {
    return static_cast<std::int64_t>(std::clamp(seconds, 0.0, 1e6) * 1e9);
  }

  [[nodiscard]] std::uint32_t checked(std::uint32_t file) const {
    if (file >= files_->size()) throw py::index_error("no file " + std::to_string(file));
    return file;
  }

  const ProcessMark process_;
  std::shared_ptr<FileTable> files_;
  std::shared_ptr<const Plan> plan_;
  Sharing sharing_;
  std::shared_ptr<Engine> engine_;
};

void bind_report(py::module_& module) {
  py::class_<Progress>(module, "Progress")
      .def_readonly("planned_bytes", &Progress::planned_bytes)
      .def_readonly("done_bytes", &Progress::done_bytes)
      .def_readonly("node_read_bytes", &Progress::node_read_bytes)
      .def_readonly("seconds", &Progress::seconds)
      .def_readonly("read_bytes", &Progress::read_bytes)
      .def_readonly("consumed_bytes", &Progress::consumed_bytes)
      .def_readonly("claimed_bytes", &Progress::claimed_bytes)
      .def_readonly("window_bytes", &Progress::window_bytes)
      .def_readonly("inflight_bytes", &Progress::inflight_bytes)
      .def_readonly("failed_bytes", &Progress::failed_bytes)
      .def_property_readonly(
          "limited_by", [](const Progress& progress) { return to_string(progress.limited_by); });
  py::class_<Report>(module, "Report")
      .def_readonly("planned_bytes", &Report::planned_bytes)
      .def_readonly("resident_bytes", &Report::resident_bytes)
      .def_readonly("read_bytes", &Report::read_bytes)
      .def_readonly("lost_bytes", &Report::lost_bytes)
      .def_readonly("shared_bytes", &Report::shared_bytes)
      .def_readonly("node_read_bytes", &Report::node_read_bytes)
      .def_readonly("failed_bytes", &Report::failed_bytes)
      .def_readonly("left_out_bytes", &Report::left_out_bytes)
      .def_readonly("refetched_bytes", &Report::refetched_bytes)
      .def_readonly("dropped_bytes", &Report::dropped_bytes)
      .def_readonly("window_bytes", &Report::window_bytes)
      .def_readonly("window_source", &Report::window_source)
      .def_readonly("seconds", &Report::seconds)
      .def_readonly("cpu_seconds", &Report::cpu_seconds)
      .def_readonly("threads", &Report::threads)
      .def_readonly("inflight_bytes", &Report::inflight_bytes)
      .def_readonly("rate_limit_bytes_per_s", &Report::rate_limit_bytes_per_s)
      .def_property_readonly("limited_by",
                             [](const Report& report) { return to_string(report.limited_by); })
      .def_readonly("strategy", &Report::strategy)
      .def_readonly("strategy_used", &Report::strategy_used)
      .def_readonly("step_bytes", &Report::step_bytes)
      .def_readonly("step_source", &Report::step_source)
      .def_readonly("keeping", &Report::keeping)
      .def_readonly("cancelled", &Report::cancelled)
      .def_readonly("done", &Report::done)
      .def_readonly("error_count", &Report::error_count)
      .def_property_readonly("errors", [](const Report& report) {
        py::list errors;
        for (const IoError& error : report.errors) errors.append(as_os_error(error));
        return errors;
      });
}

}  // namespace

void bind_prefetch(py::module_& module) {
  bind_report(module);
  py::class_<Prefetch, Held<Prefetch>>(module, "Prefetch")
      .def(py::init<const std::vector<std::string>&, const Spans&, std::uint64_t,
                    const std::string&, const std::string&, std::uint64_t, std::int64_t,
                    std::int64_t, std::uint64_t, const std::string&, std::uint32_t,
                    std::optional<std::uint64_t>, std::optional<std::uint64_t>, bool, bool, bool,
                    bool, std::shared_ptr<TouchedPages>, const FixedShare&>(),
           py::kw_only(), py::arg("paths"), py::arg("spans"), py::arg("block_bytes"),
           py::arg("partition"), py::arg("board_folder"), py::arg("inflight_bytes"),
           py::arg("local_rank"), py::arg("local_size"), py::arg("rate_limit_bytes_per_s"),
           py::arg("strategy"), py::arg("threads"), py::arg("window_bytes"),
           py::arg("memory_budget_bytes"), py::arg("consumer"), py::arg("consumer_releases"),
           py::arg("tries_mounts"), py::arg("doubted") = false, py::arg("touched") = py::none(),
           py::arg("fixed_share") = py::none(), NoGil())
      .def("wait", &Prefetch::wait, py::arg("timeout_seconds"), NoGil())
      .def("cancel", &Prefetch::cancel, NoGil())
      .def("progress", &Prefetch::progress, NoGil())
      .def("report", &Prefetch::report, NoGil())
      .def("consumed", &Prefetch::consumed, py::arg("file"), py::arg("consumed_offset"),
           py::arg("needed_offset"), py::arg("held_from_file") = py::none(), NoGil())
      .def("end_consumer", &Prefetch::end_consumer, NoGil())
      .def("keeping", &Prefetch::keeping, NoGil())
      .def("meet", &Prefetch::meet, py::arg("expected"), NoGil())
      .def("size_bytes", &Prefetch::size_bytes, py::arg("file"))
      .def("map", &Prefetch::map, py::arg("file"), NoGil())
      .def("ask_early", &Prefetch::ask_early, py::arg("file"), py::arg("ranges"), NoGil())
      .def("fetch_now", &Prefetch::fetch_now, py::arg("file"), py::arg("offset"), py::arg("length"),
           NoGil())
      .def("fetch_before_its_turn", &Prefetch::fetch_before_its_turn, py::arg("file"),
           py::arg("offset"), py::arg("length"), NoGil())
      .def("fetch_unless_misled", &Prefetch::fetch_unless_misled, py::arg("file"),
           py::arg("offset"), py::arg("length"), NoGil())
      .def("tell_misled", &Prefetch::tell_misled, NoGil())
      .def("told_misled", &Prefetch::told_misled, NoGil())
      .def("fetch_runs_now", &Prefetch::fetch_runs_now, py::arg("file"), py::arg("offset"),
           py::arg("runs"), NoGil())
      .def_property_readonly("partition_used",
                             [](const Prefetch& prefetch) { return prefetch.sharing().partition; })
      .def_property_readonly(
          "partition_reason",
          [](const Prefetch& prefetch) { return as_path(prefetch.sharing().reason); })
      .def_property_readonly("done", py::cpp_function(&Prefetch::done, NoGil()))
      .def_property_readonly("cancelled", &Prefetch::cancelled);
}

}  // namespace shardahead
