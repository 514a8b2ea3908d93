// module: the core as the Python extension shardahead._core. It converts arguments and results,
// releases the GIL around everything that may wait, translates errors, and does nothing else.
#include <pybind11/chrono.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../board.h"
#include "../board_name.h"
#include "../engine.h"
#include "../loader_progress.h"
#include "../memory_budget.h"
#include "../mount.h"
#include "../probe.h"
#include "../residency.h"
#include "../stripe.h"
#include "../tensor_reader.h"

namespace py = pybind11;
using namespace shardahead;  // NOLINT(google-build-using-namespace): this file is glue

namespace {

using Spans = std::vector<std::optional<std::vector<std::pair<std::uint64_t, std::uint64_t>>>>;

// Releases the GIL. Up to Python 3.13, a thread that wants it back while the interpreter goes down
// is ended by a forced unwind, from which py::gil_scoped_release aborts the process. Such a thread
// sleeps here until the process has ended, as it does from Python 3.14 on.
class GilReleased {
 public:
  GilReleased() : state_(PyEval_SaveThread()) {}
  ~GilReleased() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      for (;;) ::pause();
    }
  }
  GilReleased(const GilReleased&) = delete;
  GilReleased& operator=(const GilReleased&) = delete;

 private:
  PyThreadState* state_;
};

using NoGil = py::call_guard<GilReleased>;

// As Python writes paths: what is not UTF-8 stays what it is.
py::object as_path(const std::string& text) {
  return py::reinterpret_steal<py::object>(
      PyUnicode_DecodeFSDefaultAndSize(text.data(), static_cast<Py_ssize_t>(text.size())));
}

// The subclass of OSError that belongs to errno, with the file name as the caller would write it.
py::object as_os_error(const IoError& error) {
  py::object made =
      py::handle(PyExc_OSError)(error.errno_value, error.message(), as_path(error.path));
  made.attr("operation") = error.operation;
  made.attr("offset") = error.offset;
  return made;
}

void raise_os_error(const IoError& error) {
  const py::object made = as_os_error(error);
  PyErr_SetObject(py::type::handle_of(made).ptr(), made.ptr());
}

template <typename Parse>
auto parse_name(const char* argument, const std::string& name, const char* choices, Parse parse) {
  const auto parsed = parse(name);
  if (!parsed) {
    throw py::value_error(std::string(argument) + " must be one of " + choices + ", not '" + name +
                          "'");
  }
  return *parsed;
}

std::shared_ptr<const Plan> make_plan(const std::vector<std::uint64_t>& sizes, const Spans& spans,
                                      std::uint64_t block_bytes) {
  std::vector<PlannedFile> files(sizes.size());
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    files[i].size_bytes = sizes[i];
    if (i >= spans.size()) continue;
    const auto& given = spans[i];
    if (!given) continue;
    std::vector<ByteRange> wanted;
    wanted.reserve(given->size());
    for (const auto& [offset, length] : *given) wanted.push_back({offset, length});
    files[i].spans = std::move(wanted);
  }
  PlanOptions options;
  options.block_bytes = block_bytes;
  return std::make_shared<const Plan>(std::move(files), options);
}

constexpr const char* kPartitions = "dynamic, block, file";

// How the blocks are shared, and why not as was asked for, if so.
struct Sharing {
  std::string partition;
  std::string reason;
};

struct SharingOptions {
  std::string partition;
  std::string board_folder;
  std::uint64_t inflight_bytes = 0;
  std::int64_t local_rank = 0;
  std::int64_t local_size = 1;
};

std::unique_ptr<Claims> make_claims(const FileTable& files, const std::shared_ptr<const Plan>& plan,
                                    const SharingOptions& options, Sharing& sharing) {
  sharing.partition = options.partition;
  require_local_rank(options.local_rank, options.local_size);  // also where it is not needed
  if (options.partition == "dynamic") {
    BoardRefusal refusal;
    auto board =
        BoardClaims::join(options.board_folder, board_name(files, *plan), plan,
                          share_of(*plan, Partition::block, 0, 1), refusal, options.inflight_bytes);
    if (board) return board;
    sharing = {"block", "no shared memory: " + refusal.reason};
  }
  const Partition dealt = parse_name("partition", sharing.partition, kPartitions,
                                     [](const auto& name) { return partition_from(name); });
  return std::make_unique<StaticClaims>(
      plan, share_of(*plan, dealt, options.local_rank, options.local_size));
}

// One file as the consumer of a prefetch maps it. Outlives the prefetch where need be.
class FileMapping {
 public:
  FileMapping(std::weak_ptr<Engine> engine, std::size_t file, std::shared_ptr<MappedFile> mapped)
      : engine_(std::move(engine)), file_(file), mapped_(std::move(mapped)) {}

  [[nodiscard]] std::unique_ptr<HeldBytes> hold(std::uint64_t offset, std::uint64_t length) const {
    const auto engine = engine_.lock();
    if (!engine) throw std::runtime_error("the prefetch of this file has been dropped");
    return engine->hold(file_, mapped_, {offset, length});
  }

 private:
  std::weak_ptr<Engine> engine_;
  std::size_t file_;
  std::shared_ptr<MappedFile> mapped_;
};

void check_signals() {
  const py::gil_scoped_acquire locked;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

// What Python holds of a running prefetch.
class Prefetch {
 public:
  Prefetch(const std::vector<std::string>& paths, const Spans& spans, std::uint64_t block_bytes,
           const std::string& partition, const std::string& board_folder,
           std::uint64_t inflight_bytes, std::int64_t local_rank, std::int64_t local_size,
           const std::string& strategy, std::uint32_t threads,
           std::optional<std::uint64_t> window_bytes,
           std::optional<std::uint64_t> memory_budget_bytes, bool consumer, bool consumer_releases,
           bool tries_mounts) {
    EngineOptions options;
    options.strategy = parse_name("strategy", strategy, "auto, populate, fadvise, readahead, pread",
                                  [](const auto& name) { return strategy_from(name); });
    options.threads = threads;
    options.window_bytes = window_bytes;
    options.consumer = consumer;
    options.consumer_releases = consumer_releases;
    options.tries_mounts = tries_mounts;
    options.memory_budget = [given = memory_budget_bytes] {
      return given ? given : memory_budget().budget_bytes;
    };
    files_ = std::make_shared<FileTable>(system_file_io(), paths, default_max_open_files());
    std::vector<std::uint64_t> sizes;
    sizes.reserve(files_->size());
    for (std::size_t i = 0; i < files_->size(); ++i) sizes.push_back(files_->size_bytes(i));
    plan_ = make_plan(sizes, spans, block_bytes);
    auto claims =
        make_claims(*files_, plan_,
                    {partition, board_folder, inflight_bytes, local_rank, local_size}, sharing_);
    engine_ = std::make_shared<Engine>(system_file_io(), plan_, files_, std::move(claims), options);
  }

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
    engine_->consumed(
        plan_->position(checked(file), consumed_offset), plan_->position(file, needed_offset),
        held_from_file ? plan_->position(checked(*held_from_file), 0) : Consumption::kNoEnd);
  }

  bool end_consumer() { return engine_->end_consumer(); }
  void meet(std::uint32_t expected) { engine_->meet(expected, check_signals); }
  const char* keeping() { return to_string(engine_->keeping(check_signals)); }

  // What tells two versions of a file apart.
  [[nodiscard]] std::pair<std::uint64_t, std::int64_t> version(std::uint32_t file) const {
    const FileStatus& status = files_->status(checked(file));
    return {status.size_bytes, status.modified_nanoseconds};
  }

  FileMapping map(std::uint32_t file) {
    return FileMapping(engine_, file, engine_->map(checked(file)));
  }

  void fetch_now(std::uint32_t file, std::uint64_t offset, std::uint64_t length) {
    if (auto error = engine_->fetch_now(checked(file), {offset, length}, check_signals)) {
      throw IoException(std::move(*error));
    }
  }

 private:
  static std::int64_t to_nanoseconds(double seconds) {
    return static_cast<std::int64_t>(std::clamp(seconds, 0.0, 1e6) * 1e9);
  }

  [[nodiscard]] std::uint32_t checked(std::uint32_t file) const {
    if (file >= files_->size()) throw py::index_error("no file " + std::to_string(file));
    return file;
  }

  std::shared_ptr<FileTable> files_;
  std::shared_ptr<const Plan> plan_;
  Sharing sharing_;
  std::shared_ptr<Engine> engine_;
};

// One tensor of a part that was taken, as a buffer. Keeps the memory of the part.
struct TensorBytes {
  std::shared_ptr<TensorMemory> memory;
  std::size_t index = 0;
};

// What Python holds of a part that was taken.
class ReadPart {
 public:
  explicit ReadPart(TakenPart taken) : taken_(std::move(taken)) {}

  [[nodiscard]] const TakenPart& taken() const { return taken_; }
  [[nodiscard]] TensorBytes tensor(std::size_t index) const {
    if (!taken_.memory || index >= taken_.memory->count()) {
      throw py::index_error("no tensor " + std::to_string(index));
    }
    return {taken_.memory, index};
  }

 private:
  TakenPart taken_;
};

std::unique_ptr<TensorReader> make_tensor_reader(std::vector<std::string> paths,
                                                 std::uint32_t threads, std::uint64_t ahead_bytes,
                                                 bool through_mappings) {
  TensorReaderOptions options;
  options.through_mappings = through_mappings;
  options.threads = threads;
  options.ahead_bytes = ahead_bytes;
  return std::make_unique<TensorReader>(system_file_io(), std::move(paths), options);
}

struct FileResidency {
  std::uint64_t size_bytes = 0;
  Residency residency;
};

FileResidency residency_of(const std::string& path) {
  const auto file = File::open(system_file_io(), path);
  return {file->status().size_bytes, residency(system_file_io(), *file)};
}

FileResidency evict_file(const std::string& path) {
  const auto file = File::open(system_file_io(), path);
  const ByteRange whole{0, file->status().size_bytes};
  if (const int result = evict(system_file_io(), *file, whole); result < 0) {
    throw IoException(file->error(-result, "fadvise", 0));
  }
  return {file->status().size_bytes, residency(system_file_io(), *file)};
}

using Ranges = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

std::optional<Ranges> absent_in(const std::string& path, std::uint64_t limit_bytes) {
  const auto file = File::open(system_file_io(), path);
  const auto absent = absent_ranges(system_file_io(), *file, limit_bytes);
  if (!absent) return std::nullopt;
  Ranges ranges;
  for (const ByteRange& range : *absent) ranges.emplace_back(range.offset, range.length);
  return ranges;
}

std::vector<double> latencies_in(const std::string& path,
                                 const std::vector<std::uint64_t>& offsets) {
  const auto file = File::open(system_file_io(), path);
  return read_latencies(system_file_io(), *file, offsets);
}

void bind_report(py::module_& module) {
  py::class_<Progress>(module, "Progress")
      .def_readonly("planned_bytes", &Progress::planned_bytes)
      .def_readonly("done_bytes", &Progress::done_bytes)
      .def_readonly("seconds", &Progress::seconds);
  py::class_<Report>(module, "Report")
      .def_readonly("planned_bytes", &Report::planned_bytes)
      .def_readonly("resident_bytes", &Report::resident_bytes)
      .def_readonly("read_bytes", &Report::read_bytes)
      .def_readonly("lost_bytes", &Report::lost_bytes)
      .def_readonly("shared_bytes", &Report::shared_bytes)
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

void bind_prefetch(py::module_& module) {
  py::class_<HeldBytes>(module, "HeldBytes", py::buffer_protocol())
      .def_buffer([](const HeldBytes& held) {
        return py::buffer_info(reinterpret_cast<std::uint8_t*>(held.memory()),
                               static_cast<py::ssize_t>(held.size_bytes()));
      });
  py::class_<FileMapping>(module, "FileMapping")
      .def("hold", &FileMapping::hold, py::arg("offset"), py::arg("length"), NoGil());
  py::class_<Prefetch>(module, "Prefetch")
      .def(py::init<const std::vector<std::string>&, const Spans&, std::uint64_t,
                    const std::string&, const std::string&, std::uint64_t, std::int64_t,
                    std::int64_t, const std::string&, std::uint32_t, std::optional<std::uint64_t>,
                    std::optional<std::uint64_t>, bool, bool, bool>(),
           py::kw_only(), py::arg("paths"), py::arg("spans"), py::arg("block_bytes"),
           py::arg("partition"), py::arg("board_folder"), py::arg("inflight_bytes"),
           py::arg("local_rank"), py::arg("local_size"), py::arg("strategy"), py::arg("threads"),
           py::arg("window_bytes"), py::arg("memory_budget_bytes"), py::arg("consumer"),
           py::arg("consumer_releases"), py::arg("tries_mounts"), NoGil())
      .def("wait", &Prefetch::wait, py::arg("timeout_seconds"), NoGil())
      .def("cancel", &Prefetch::cancel, NoGil())
      .def("progress", &Prefetch::progress, NoGil())
      .def("report", &Prefetch::report, NoGil())
      .def("consumed", &Prefetch::consumed, py::arg("file"), py::arg("consumed_offset"),
           py::arg("needed_offset"), py::arg("held_from_file") = py::none(), NoGil())
      .def("end_consumer", &Prefetch::end_consumer, NoGil())
      .def("keeping", &Prefetch::keeping, NoGil())
      .def("meet", &Prefetch::meet, py::arg("expected"), NoGil())
      .def("version", &Prefetch::version, py::arg("file"))
      .def("map", &Prefetch::map, py::arg("file"), NoGil())
      .def("fetch_now", &Prefetch::fetch_now, py::arg("file"), py::arg("offset"), py::arg("length"),
           NoGil())
      .def_property_readonly("partition_used",
                             [](const Prefetch& prefetch) { return prefetch.sharing().partition; })
      .def_property_readonly(
          "partition_reason",
          [](const Prefetch& prefetch) { return as_path(prefetch.sharing().reason); })
      .def_property_readonly("done", &Prefetch::done)
      .def_property_readonly("cancelled", &Prefetch::cancelled);
}

void bind_tensor_reader(py::module_& module) {
  py::class_<TensorBytes>(module, "TensorBytes", py::buffer_protocol())
      .def_buffer([](const TensorBytes& bytes) {
        return py::buffer_info(reinterpret_cast<std::uint8_t*>(bytes.memory->tensor(bytes.index)),
                               static_cast<py::ssize_t>(bytes.memory->length_bytes(bytes.index)));
      });
  py::class_<ReadPart>(module, "ReadPart")
      .def("tensor", &ReadPart::tensor, py::arg("index"))
      .def_property_readonly("readable_bytes",
                             [](const ReadPart& part) { return part.taken().readable_bytes; })
      .def_property_readonly("file_bytes",
                             [](const ReadPart& part) { return part.taken().file_bytes; })
      .def_property_readonly("error", [](const ReadPart& part) -> std::optional<py::object> {
        if (!part.taken().error) return std::nullopt;
        return as_os_error(*part.taken().error);
      });
  py::class_<TensorReader>(module, "TensorReader")
      .def(py::init(&make_tensor_reader), py::kw_only(), py::arg("paths"), py::arg("threads"),
           py::arg("ahead_bytes"), py::arg("through_mappings") = false, NoGil())
      .def(
          "wait_opened", [](TensorReader& reader) { reader.wait_opened(check_signals); }, NoGil())
      .def("add", &TensorReader::add, py::arg("file"), py::arg("offset"), py::arg("lengths"),
           NoGil())
      .def("add_header", &TensorReader::add_header, py::arg("file"), NoGil())
      .def("ready", &TensorReader::ready, py::arg("part"), NoGil())
      .def(
          "take",
          [](TensorReader& reader, TensorReader::Part part) {
            return ReadPart(reader.take(part, check_signals));
          },
          py::arg("part"), NoGil())
      .def("close", &TensorReader::close, NoGil())
      .def_property_readonly("read_bytes", &TensorReader::read_bytes);
}

void bind_plan(py::module_& module) {
  using Blocks = std::vector<std::tuple<std::uint32_t, std::uint64_t, std::uint64_t>>;
  module.def(
      "plan_blocks",
      [](const std::vector<std::uint64_t>& sizes, const Spans& spans, std::uint64_t block_bytes) {
        const auto plan = make_plan(sizes, spans, block_bytes);
        Blocks blocks;
        for (const Block& block : plan->blocks()) {
          blocks.emplace_back(block.file, block.range.offset, block.range.length);
        }
        return blocks;
      },
      py::arg("sizes"), py::arg("spans"), py::arg("block_bytes"), NoGil());
  module.def(
      "plan_share",
      [](const std::vector<std::uint64_t>& sizes, const Spans& spans, std::uint64_t block_bytes,
         const std::string& partition, std::int64_t local_rank, std::int64_t local_size) {
        const Partition dealt = parse_name("partition", partition, "block, file",
                                           [](const auto& name) { return partition_from(name); });
        return share_of(*make_plan(sizes, spans, block_bytes), dealt, local_rank, local_size);
      },
      py::arg("sizes"), py::arg("spans"), py::arg("block_bytes"), py::arg("partition"),
      py::arg("local_rank"), py::arg("local_size"), NoGil());
}

void bind_residency(py::module_& module) {
  py::class_<FileResidency>(module, "FileResidency")
      .def_readonly("size_bytes", &FileResidency::size_bytes)
      .def_property_readonly(
          "resident_bytes", [](const FileResidency& file) { return file.residency.resident_bytes; })
      .def_property_readonly(
          "source", [](const FileResidency& file) { return to_string(file.residency.source); })
      .def_property_readonly("reason",
                             [](const FileResidency& file) { return file.residency.reason; })
      .def_property_readonly("errno_value",
                             [](const FileResidency& file) { return file.residency.errno_value; });
  module.def("residency", &residency_of, py::arg("path"), NoGil());
  module.def("evict", &evict_file, py::arg("path"), NoGil());
  module.attr("PROBE_STEP_BYTES") = kProbeStepBytes;
  module.def("absent_ranges", &absent_in, py::arg("path"), py::arg("limit_bytes"), NoGil());
  module.def("read_latencies", &latencies_in, py::arg("path"), py::arg("offsets"), NoGil());
}

void bind_mount(py::module_& module) {
  py::class_<Mount>(module, "Mount")
      .def_readonly("id", &Mount::id)
      .def_property_readonly("device", [](const Mount& mount) { return to_string(mount.device); })
      .def_property_readonly("root", [](const Mount& mount) { return as_path(mount.root); })
      .def_property_readonly("mount_point",
                             [](const Mount& mount) { return as_path(mount.mount_point); })
      .def_property_readonly("type", [](const Mount& mount) { return as_path(mount.type); })
      .def_property_readonly("source", [](const Mount& mount) { return as_path(mount.source); })
      .def_property_readonly("options",
                             [](const Mount& mount) {
                               py::list options;
                               for (const auto& option : mount.options) {
                                 options.append(as_path(option));
                               }
                               return options;
                             })
      .def_property_readonly("mount_class",
                             [](const Mount& mount) { return to_string(mount.mount_class); })
      .def_property_readonly("read_ahead_path",
                             [](const Mount& mount) { return as_path(mount.read_ahead_path); })
      .def_readonly("read_ahead_bytes", &Mount::read_ahead_bytes)
      .def_readonly("request_bytes", &Mount::request_bytes)
      .def_readonly("layers", &Mount::layers);
  py::class_<MountLayer>(module, "MountLayer")
      .def_property_readonly("path", [](const MountLayer& layer) { return as_path(layer.path); })
      .def_readonly("upper", &MountLayer::upper)
      .def_readonly("mount", &MountLayer::mount);
  module.def("mount_id", &mount_id_of, py::arg("path"), NoGil());
  py::class_<Stripe>(module, "Stripe")
      .def_readonly("size_bytes", &Stripe::size_bytes)
      .def_readonly("count", &Stripe::count);
  module.def("stripe_of", &stripe_of, py::arg("path"), NoGil());
  module.def(
      "striped_block_bytes",
      [](std::uint64_t block_bytes, std::uint64_t stripe_bytes) {
        return striped_block_bytes(block_bytes, {stripe_bytes, 1});
      },
      py::arg("block_bytes"), py::arg("stripe_bytes"));
  module.def("mount_with_id", &mount_with_id, py::arg("mount_id"), py::arg("root"), NoGil());
}

void bind_loader_progress(py::module_& module) {
  py::class_<LoaderProgress>(module, "LoaderProgress")
      .def(py::init([](const std::vector<std::string>& paths) {
             return std::make_unique<LoaderProgress>(paths);
           }),
           py::arg("paths"), NoGil())
      .def(
          "look",
          [](LoaderProgress& progress, std::uint64_t scan_bytes) {
            std::vector<std::pair<std::uint64_t, bool>> found;
            for (const LoaderPosition& position : progress.look(scan_bytes)) {
              found.emplace_back(position.end_bytes, position.mapped);
            }
            return found;
          },
          py::arg("scan_bytes"), NoGil());
}

void bind_memory(py::module_& module) {
  py::class_<MemoryLimit>(module, "MemoryLimit")
      .def_readonly("source", &MemoryLimit::source)
      .def_readonly("limit_bytes", &MemoryLimit::limit_bytes)
      .def_readonly("used_bytes", &MemoryLimit::used_bytes)
      .def_readonly("droppable_bytes", &MemoryLimit::droppable_bytes)
      .def_property_readonly("free_bytes", &MemoryLimit::free_bytes);
  py::class_<MemoryBudget>(module, "MemoryBudget")
      .def_readonly("budget_bytes", &MemoryBudget::budget_bytes)
      .def_readonly("reserve_bytes", &MemoryBudget::reserve_bytes)
      .def_readonly("tightest", &MemoryBudget::tightest)
      .def_readonly("limits", &MemoryBudget::limits);
  module.def("memory_budget", &memory_budget, py::arg("root"), NoGil());
}

}  // namespace

PYBIND11_MODULE(_core, module, py::mod_gil_not_used()) {
  module.doc() = "The C++ core of shardahead. Private: use the shardahead package.";
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const IoException& exception) {
      raise_os_error(exception.error());
    }
  });
  module.attr("MIN_BLOCK_BYTES") = kMinBlockBytes;
  module.attr("MAX_BLOCK_BYTES") = kMaxBlockBytes;
  module.attr("MAX_THREADS") = kMaxThreads;
  module.attr("DEFAULT_BLOCK_BYTES") = PlanOptions{}.block_bytes;
  module.attr("DEFAULT_THREADS") = EngineOptions{}.threads;
  bind_report(module);
  module.attr("DEFAULT_AHEAD_BYTES") = TensorReaderOptions{}.ahead_bytes;
  bind_prefetch(module);
  bind_tensor_reader(module);
  bind_plan(module);
  bind_residency(module);
  bind_mount(module);
  bind_memory(module);
  bind_loader_progress(module);
}
