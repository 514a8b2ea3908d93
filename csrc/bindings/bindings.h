// bindings: what the files of the Python extension share. They convert arguments and results,
// release the GIL around everything that may wait, translate errors, and do nothing else.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "plan/plan.h"

namespace shardahead {

namespace py = pybind11;

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

// How Python lets go of what may have to wait for a mutex then, or has much to take down.
struct DeletedWithoutGil {
  template <typename T>
  void operator()(T* object) const noexcept {
    const GilReleased released;
    delete object;
  }
};
template <typename T>
using Held = std::unique_ptr<T, DeletedWithoutGil>;

// The same for one of many, most of which are let go of in no time: other threads of Python would
// take the GIL each time.
struct LastDeletedWithoutGil {
  template <typename T>
  void operator()(T* object) const noexcept {
    if (object->is_last()) return DeletedWithoutGil()(object);
    delete object;
  }
};
template <typename T>
using HeldByMany = std::unique_ptr<T, LastDeletedWithoutGil>;

// With the GIL released: throws what a signal handler raised.
void check_signals();

// As Python writes paths: what is not UTF-8 stays what it is.
py::object as_path(const std::string& text);

// The subclass of OSError that belongs to errno, with the file name as the caller would write it.
py::object as_os_error(const IoError& error);

// By file: (offset, length) of what is wanted, or nothing for all of it.
using Spans = std::vector<std::optional<std::vector<std::pair<std::uint64_t, std::uint64_t>>>>;

std::shared_ptr<const Plan> make_plan(const std::vector<std::uint64_t>& sizes, const Spans& spans,
                                      std::uint64_t block_bytes);

// What `parse` makes of a name that the caller gave. Throws ValueError with the choices.
template <typename Parse>
auto parse_name(const char* argument, const std::string& name, const char* choices, Parse parse) {
  const auto parsed = parse(name);
  if (!parsed) {
    throw py::value_error(std::string(argument) + " must be one of " + choices + ", not '" + name +
                          "'");
  }
  return *parsed;
}

// In the order in which the module has them.
void bind_plan(py::module_& module);
void bind_file_mapping(py::module_& module);
void bind_touched(py::module_& module);
void bind_prefetch(py::module_& module);
void bind_tensor_reader(py::module_& module);
void bind_residency(py::module_& module);
void bind_kept_file(py::module_& module);
void bind_block_copy(py::module_& module);
void bind_mount(py::module_& module);
void bind_memory(py::module_& module);
void bind_loader_progress(py::module_& module);
void bind_build(py::module_& module);

}  // namespace shardahead
