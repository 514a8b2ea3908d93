#include "bindings/file_mapping.h"

#include <pybind11/critical_section.h>

#include <stdexcept>
#include <string>

#include "base/json_scan.h"
#include "base/let_go.h"

namespace shardahead {

FileMapping::FileMapping(const std::string& path)
    : alone_(true),
      file_(File::open(system_file_io(), path)),
      mapped_(std::make_shared<MappedFile>(*file_)) {
  MappedFile::faults_alone(*file_);
}

FileMapping::FileMapping(std::weak_ptr<Engine> engine, std::size_t number,
                         std::shared_ptr<const File> file, std::shared_ptr<MappedFile> mapped,
                         bool in_part)
    : engine_(std::move(engine)),
      in_part_(in_part),
      number_(number),
      file_(std::move(file)),
      mapped_(std::move(mapped)) {}

FileMapping::~FileMapping() {
  MappedFile::let_go(std::move(mapped_));
  if (file_) let_go_elsewhere(system_runtime(), std::move(file_));
}

HeldByMany<HeldBytes> FileMapping::hold(std::uint64_t offset, const ByteRuns& runs,
                                        const Expected& expected) const {
  if (alone_) {
    const std::uint64_t length = runs.extent_bytes();
    if (offset > mapped_->size_bytes() || length > mapped_->size_bytes() - offset) {
      throw std::invalid_argument("bytes that are not in the file");
    }
    return HeldByMany<HeldBytes>(new HeldBytes(mapped_, {offset, length}, nullptr, 0));
  }
  const auto engine = engine_.lock();
  if (!engine) throw std::runtime_error("the prefetch of this file has been dropped");
  std::optional<std::vector<ByteRange>> parts;
  if (expected) {
    parts.emplace();
    for (const auto& [at, bytes] : *expected) parts->push_back({at, bytes});
  }
  return HeldByMany<HeldBytes>(engine->hold(number_, mapped_, offset, runs, parts).release());
}

namespace {

// Not through the mapping: what cannot be read is an IoException. Nor through the descriptor that
// is mapped, where `exact`: the kernel would go on reading, further with every page that is used.
void read_into(const File& file, ByteRange range, std::byte* to, bool exact) {
  std::uint64_t done = 0;
  const int own = exact ? file.fault_descriptor() : -1;
  const int descriptor = own >= 0 ? own : file.descriptor();
  const int result = pread_full(system_file_io(), descriptor, to, range, done);
  if (result < 0) throw IoException(file.error(-result, "pread", range.offset + done));
  if (done < range.length) throw IoException(file.became_shorter(range.offset + done));
}

py::bytes read_bytes(const py::object& self, std::uint64_t offset, std::uint64_t length) {
  std::shared_ptr<const File> file;
  bool exact = false;
  {
    const py::scoped_critical_section locked(self);
    const auto& mapping = self.cast<const FileMapping&>();
    file = mapping.file();
    exact = mapping.is_in_part();
  }
  if (!file) throw std::logic_error("the file has been closed");
  py::bytes made(nullptr, static_cast<py::ssize_t>(length));
  auto* const to = reinterpret_cast<std::byte*>(PyBytes_AS_STRING(made.ptr()));
  {
    const GilReleased released;
    const auto held = std::move(file);  // closed here if it is the last one, which may wait
    read_into(*held, {offset, length}, to, exact);
  }
  return made;
}

void close(const py::object& self) {
  std::shared_ptr<const File> file;
  {
    const py::scoped_critical_section locked(self);
    file = self.cast<FileMapping&>().close();
  }
  const GilReleased released;
  file.reset();
}

py::tuple json_extent(const py::bytes& text) {
  JsonExtent found;
  const std::string_view view = text;
  {
    const GilReleased released;
    found = scan_json(view);
  }
  return py::make_tuple(found.values, found.objects, found.depth);
}

}  // namespace

void bind_file_mapping(py::module_& module) {
  py::class_<HeldBytes, HeldByMany<HeldBytes>>(module, "HeldBytes", py::buffer_protocol())
      .def_buffer([](const HeldBytes& held) {
        return py::buffer_info(reinterpret_cast<std::uint8_t*>(held.memory()),
                               static_cast<py::ssize_t>(held.size_bytes()));
      });
  py::class_<FileMapping, HeldByMany<FileMapping>>(module, "FileMapping")
      .def(py::init<const std::string&>(), py::arg("path"), NoGil())
      .def_property_readonly("size_bytes", &FileMapping::size_bytes)
      .def("read", &read_bytes, py::arg("offset"), py::arg("length"))
      .def("close", &close)
      .def(
          "hold",
          [](const FileMapping& mapping, std::uint64_t offset, std::uint64_t length,
             const FileMapping::Expected& expected) {
            return mapping.hold(offset, ByteRuns(length), expected);
          },
          py::arg("offset"), py::arg("length"), py::arg("expected") = py::none(), NoGil())
      .def("hold_runs", &FileMapping::hold, py::arg("offset"), py::arg("runs"),
           py::arg("expected") = py::none(), NoGil());
  module.def("json_extent", &json_extent, py::arg("text"));
}

}  // namespace shardahead
