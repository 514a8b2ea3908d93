// build: with what the core was compiled, and what the kernel has of what it uses.
#include "base/build.h"

#include "bindings/bindings.h"
#include "node/file_io.h"
#include "node/kernel_features.h"

namespace shardahead {

void bind_build(py::module_& module) {
  module.attr("COMPILER") = compiler();
  module.attr("C_LIBRARY") = c_library();
  module.attr("SANITIZERS") = py::tuple(py::cast(sanitizers()));
  module.attr("OPTIMIZED") = optimized();
  module.attr("PAGE_BYTES") = page_bytes();
  py::class_<KernelFeatures>(module, "KernelFeatures")
      .def_readonly("release", &KernelFeatures::release)
      .def_readonly("cachestat", &KernelFeatures::cachestat)
      .def_readonly("populate_read", &KernelFeatures::populate_read)
      .def_readonly("mount_ids", &KernelFeatures::mount_ids)
      .def_readonly("unique_mount_ids", &KernelFeatures::unique_mount_ids)
      .def_readonly("process_vm_readv", &KernelFeatures::process_vm_readv)
      .def_readonly("huge_pages", &KernelFeatures::huge_pages);
  module.def("kernel_features", &kernel_features, NoGil());
}

}  // namespace shardahead
