#include "bindings/bindings.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace shardahead {

// Handlers of signals run on the main thread alone. Another thread would take the GIL for nothing,
// and while the interpreter goes down it would be ended for it, or find none. (No gettid() in glibc
// before 2.30.)
void check_signals() {
  if (::syscall(SYS_gettid) != ::getpid()) return;
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
