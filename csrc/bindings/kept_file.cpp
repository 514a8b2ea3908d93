// kept_file: a file that this process keeps open, and locked where that is asked for; and how
// urgent its reads are.
#include "base/let_go.h"
#include "bindings/bindings.h"
#include "node/io_priority.h"
#include "node/locked_file.h"
#include "node/residency.h"

namespace shardahead {
namespace {

// One thread at a time.
class KeptFile {
 public:
  explicit KeptFile(const std::string& path) : file_(File::open(system_file_io(), path)) {}
  // Closing it, or unmapping it last, may wait for a server.
  ~KeptFile() {
    if (locked_) let_go_elsewhere(system_runtime(), std::move(locked_));
    let_go_elsewhere(system_runtime(), std::move(file_));
  }
  KeptFile(const KeptFile&) = delete;
  KeptFile& operator=(const KeptFile&) = delete;

  [[nodiscard]] const FileStatus& status() const { return file_->status(); }
  // Pages that are still being read count: to tell them apart takes a hundred times as long.
  [[nodiscard]] Residency residency() const {
    return shardahead::residency(system_file_io(), *file_);
  }
  void lock(std::uint64_t offset, std::uint64_t length) {
    if (!locked_) locked_ = std::make_shared<LockedFile>(*file_);
    locked_->lock({offset, length});
  }

 private:
  std::shared_ptr<const File> file_;
  std::shared_ptr<LockedFile> locked_;
};

}  // namespace

void bind_kept_file(py::module_& module) {
  py::class_<KeptFile, Held<KeptFile>>(module, "KeptFile")
      .def(py::init<const std::string&>(), py::arg("path"), NoGil())
      .def_property_readonly("size_bytes",
                             [](const KeptFile& file) { return file.status().size_bytes; })
      .def(
          "resident_bytes", [](const KeptFile& file) { return file.residency().resident_bytes; },
          NoGil())
      .def("lock", &KeptFile::lock, py::arg("offset"), py::arg("length"), NoGil());
  module.def("locks_beyond_limit", &locks_beyond_limit);
  // errno, or 0.
  module.def("lower_io_priority", [] { return -lower_io_priority(); });
  module.def("io_priority_class", &io_priority_class);
}

}  // namespace shardahead
