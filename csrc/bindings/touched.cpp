// touched: what Python holds of what the consumer of a load has used of its files.
#include "bindings/bindings.h"
#include "engine/touched_pages.h"

namespace shardahead {
namespace {

using Pairs = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

Pairs pairs_of(const std::vector<ByteRange>& ranges) {
  Pairs found;
  found.reserve(ranges.size());
  for (const ByteRange& range : ranges) found.emplace_back(range.offset, range.length);
  return found;
}

}  // namespace

void bind_touched(py::module_& module) {
  module.attr("TOUCHED_GRAIN_BYTES") = TouchedBytes::kGrainBytes;
  py::class_<TouchedPages, std::shared_ptr<TouchedPages>>(module, "TouchedPages")
      .def(py::init<const std::vector<std::uint64_t>&>(), py::arg("sizes"))
      .def_property_readonly("can_look", &TouchedPages::can_look)
      .def_property_readonly("held", py::cpp_function(&TouchedPages::held, NoGil()))
      .def_property_readonly(
          "touched_bytes",
          py::cpp_function([](TouchedPages& touched) { return touched.bytes().bytes(); }, NoGil()))
      .def("look", &TouchedPages::look, NoGil())
      .def_property_readonly(
          "unexpected_bytes",
          py::cpp_function([](TouchedPages& touched) { return touched.bytes().unexpected_bytes(); },
                           NoGil()))
      .def(
          "expect",
          [](TouchedPages& touched, std::size_t file, const Pairs& ranges) {
            for (const auto& [offset, length] : ranges) {
              touched.bytes().expect(file, {offset, length});
            }
          },
          py::arg("file"), py::arg("ranges"), NoGil())
      .def(
          "mark",
          [](TouchedPages& touched, std::size_t file, std::uint64_t offset, std::uint64_t length) {
            touched.bytes().mark(file, {offset, length});
          },
          py::arg("file"), py::arg("offset"), py::arg("length"), NoGil())
      .def(
          "ranges",
          [](TouchedPages& touched, std::size_t file) {
            return pairs_of(touched.bytes().ranges(file));
          },
          py::arg("file"), NoGil())
      .def("order", [](TouchedPages& touched) { return touched.bytes().order(); }, NoGil());
}

}  // namespace shardahead
