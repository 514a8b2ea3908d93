// module: the core as the Python extension shardahead._core.
#include "bindings/bindings.h"
#include "engine/engine.h"
#include "reader/tensor_reader.h"

namespace py = pybind11;
using namespace shardahead;  // NOLINT(google-build-using-namespace): this file is glue

namespace {

void raise_os_error(const IoError& error) {
  const py::object made = as_os_error(error);
  PyErr_SetObject(py::type::handle_of(made).ptr(), made.ptr());
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
  module.attr("POPULATE_BYTES") = kPopulateBytes;
  module.attr("DEFAULT_AHEAD_BYTES") = TensorReaderOptions{}.ahead_bytes;
  bind_plan(module);
  bind_file_mapping(module);
  bind_touched(module);
  bind_prefetch(module);
  bind_tensor_reader(module);
  bind_residency(module);
  bind_kept_file(module);
  bind_block_copy(module);
  bind_mount(module);
  bind_memory(module);
  bind_loader_progress(module);
  bind_build(module);
}
