// residency: what files are, what the page cache holds of them, and what a measurement may read.
#include "node/residency.h"

#include <tuple>

#include "base/in_parallel.h"
#include "bindings/bindings.h"
#include "node/probe.h"

namespace shardahead {
namespace {

struct FileResidency {
  std::uint64_t size_bytes = 0;
  Residency residency;
};

FileResidency residency_of(const std::string& path) {
  const auto file = File::open(system_file_io(), path);
  return {file->status().size_bytes, usable_residency(system_file_io(), *file)};
}

FileResidency evict_file(const std::string& path) {
  const auto file = File::open(system_file_io(), path);
  const ByteRange whole{0, file->status().size_bytes};
  if (const int result = evict(system_file_io(), *file, whole); result < 0) {
    throw IoException(file->error(-result, "fadvise", 0));
  }
  return {file->status().size_bytes, usable_residency(system_file_io(), *file)};
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

// Of each path (mode, size_bytes, device, inode, modified_nanoseconds); nothing where there is no
// such file, or it cannot be told.
using Status = std::tuple<std::uint32_t, std::uint64_t, std::uint64_t, std::uint64_t, std::int64_t>;

std::vector<std::optional<Status>> statuses_of(const std::vector<std::string>& paths) {
  std::vector<std::optional<Status>> found(paths.size());
  in_parallel(paths.size(), kLookupThreads, [&](std::size_t i) {
    FileStatus status;
    if (system_file_io().status(paths[i], status) < 0) return;
    found[i] = {status.mode, status.size_bytes, status.device, status.inode,
                status.modified_nanoseconds};
  });
  return found;
}

}  // namespace

void bind_residency(py::module_& module) {
  py::class_<FileResidency>(module, "FileResidency")
      .def_readonly("size_bytes", &FileResidency::size_bytes)
      .def_property_readonly(
          "resident_bytes", [](const FileResidency& file) { return file.residency.resident_bytes; })
      .def_property_readonly("pending_bytes",
                             [](const FileResidency& file) { return file.residency.pending_bytes; })
      .def_property_readonly(
          "source", [](const FileResidency& file) { return to_string(file.residency.source); })
      .def_property_readonly("reason",
                             [](const FileResidency& file) { return file.residency.reason; })
      .def_property_readonly("errno_value",
                             [](const FileResidency& file) { return file.residency.errno_value; });
  module.def("statuses", &statuses_of, py::arg("paths"), NoGil());
  module.def("residency", &residency_of, py::arg("path"), NoGil());
  module.def("evict", &evict_file, py::arg("path"), NoGil());
  module.attr("PROBE_STEP_BYTES") = kProbeStepBytes;
  module.def("absent_ranges", &absent_in, py::arg("path"), py::arg("limit_bytes"), NoGil());
  module.def("read_latencies", &latencies_in, py::arg("path"), py::arg("offsets"), NoGil());
}

}  // namespace shardahead
