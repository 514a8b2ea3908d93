#include "bindings/bindings.h"

namespace shardahead {

void check_signals() {
  const py::gil_scoped_acquire locked;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

py::object as_path(const std::string& text) {
  return py::reinterpret_steal<py::object>(
      PyUnicode_DecodeFSDefaultAndSize(text.data(), static_cast<Py_ssize_t>(text.size())));
}

py::object as_os_error(const IoError& error) {
  py::object made =
      py::handle(PyExc_OSError)(error.errno_value, error.message(), as_path(error.path));
  made.attr("operation") = error.operation;
  made.attr("offset") = error.offset;
  return made;
}

}  // namespace shardahead
