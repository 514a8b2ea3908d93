// tensor_reader: tensors in memory of their own, as buffers.
#include "reader/tensor_reader.h"

#include <tuple>

#include "bindings/bindings.h"

namespace shardahead {
namespace {

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

// Of each path what it was when it was looked at: (size_bytes, device, inode,
// modified_nanoseconds).
using Found = std::vector<std::tuple<std::uint64_t, std::uint64_t, std::uint64_t, std::int64_t>>;

Held<TensorReader> make_tensor_reader(std::vector<std::string> paths, std::uint32_t threads,
                                      std::uint64_t ahead_bytes, bool through_mappings,
                                      const Found& found) {
  TensorReaderOptions options;
  for (const auto& [size_bytes, device, inode, modified_nanoseconds] : found) {
    FileStatus& status = options.found.emplace_back();
    status.size_bytes = size_bytes;
    status.device = device;
    status.inode = inode;
    status.modified_nanoseconds = modified_nanoseconds;
  }
  options.through_mappings = through_mappings;
  options.threads = threads;
  options.ahead_bytes = ahead_bytes;
  return Held<TensorReader>(new TensorReader(system_file_io(), std::move(paths), options));
}

}  // namespace

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
  py::class_<TensorReader, Held<TensorReader>>(module, "TensorReader")
      .def(py::init(&make_tensor_reader), py::kw_only(), py::arg("paths"), py::arg("threads"),
           py::arg("ahead_bytes"), py::arg("through_mappings") = false, py::arg("found") = Found{},
           NoGil())
      .def(
          "wait_opened", [](TensorReader& reader) { reader.wait_opened(check_signals); }, NoGil())
      .def("add", &TensorReader::add, py::arg("file"), py::arg("offset"), py::arg("lengths"),
           NoGil())
      .def("add_runs", &TensorReader::add_runs, py::arg("file"), py::arg("offset"), py::arg("runs"),
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
      .def_property_readonly("read_bytes", py::cpp_function(&TensorReader::read_bytes, NoGil()));
}

}  // namespace shardahead
