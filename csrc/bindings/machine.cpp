// machine: what the kernel tells of mounts, of memory, and of a loader that is not ours.
#include "bindings/bindings.h"
#include "engine/touched_pages.h"
#include "node/loader_progress.h"
#include "node/memory_budget.h"
#include "node/mount.h"
#include "node/stripe.h"

namespace shardahead {

void bind_mount(py::module_& module) {
  py::class_<Mount>(module, "Mount")
      .def_readonly("id", &Mount::id)
      .def_property_readonly("device", [](const Mount& mount) { return to_string(mount.device); })
      .def_property_readonly("root", [](const Mount& mount) { return as_path(mount.root); })
      .def_property_readonly("mount_point",
                             [](const Mount& mount) { return as_path(mount.mount_point); })
      .def_property_readonly("type", [](const Mount& mount) { return as_path(mount.type); })
      .def_property_readonly("source", [](const Mount& mount) { return as_path(mount.source); })
      .def_property_readonly("options",
                             [](const Mount& mount) {
                               py::list options;
                               for (const auto& option : mount.options) {
                                 options.append(as_path(option));
                               }
                               return options;
                             })
      .def_property_readonly("mount_class",
                             [](const Mount& mount) { return to_string(mount.mount_class); })
      .def_property_readonly("read_ahead_path",
                             [](const Mount& mount) { return as_path(mount.read_ahead_path); })
      .def_readonly("read_ahead_bytes", &Mount::read_ahead_bytes)
      .def_readonly("request_bytes", &Mount::request_bytes)
      .def_readonly("layers", &Mount::layers);
  py::class_<MountLayer>(module, "MountLayer")
      .def_property_readonly("path", [](const MountLayer& layer) { return as_path(layer.path); })
      .def_readonly("upper", &MountLayer::upper)
      .def_readonly("mount", &MountLayer::mount);
  module.def("mount_id", &mount_id_of, py::arg("path"), NoGil());
  py::class_<Stripe>(module, "Stripe")
      .def_readonly("size_bytes", &Stripe::size_bytes)
      .def_readonly("count", &Stripe::count);
  module.def("stripe_of", &stripe_of, py::arg("path"), NoGil());
  module.def(
      "striped_block_bytes",
      [](std::uint64_t block_bytes, std::uint64_t stripe_bytes) {
        return striped_block_bytes(block_bytes, {stripe_bytes, 1});
      },
      py::arg("block_bytes"), py::arg("stripe_bytes"));
  module.def("mount_with_id", &mount_with_id, py::arg("mount_id"), py::arg("root"), NoGil());
}

void bind_memory(py::module_& module) {
  py::class_<MemoryLimit>(module, "MemoryLimit")
      .def_readonly("source", &MemoryLimit::source)
      .def_readonly("limit_bytes", &MemoryLimit::limit_bytes)
      .def_readonly("used_bytes", &MemoryLimit::used_bytes)
      .def_readonly("droppable_bytes", &MemoryLimit::droppable_bytes)
      .def_property_readonly("free_bytes", &MemoryLimit::free_bytes);
  py::class_<MemoryBudget>(module, "MemoryBudget")
      .def_readonly("budget_bytes", &MemoryBudget::budget_bytes)
      .def_readonly("reserve_bytes", &MemoryBudget::reserve_bytes)
      .def_readonly("tightest", &MemoryBudget::tightest)
      .def_readonly("limits", &MemoryBudget::limits);
  module.def("memory_budget", &memory_budget, py::arg("root"), NoGil());
}

void bind_loader_progress(py::module_& module) {
  py::class_<LoaderProgress, Held<LoaderProgress>>(module, "LoaderProgress")
      .def(py::init([](const std::vector<std::string>& paths) {
             return Held<LoaderProgress>(new LoaderProgress(paths));
           }),
           py::arg("paths"), NoGil())
      .def(
          "look",
          [](LoaderProgress& progress, std::uint64_t scan_bytes) {
            std::vector<std::pair<std::uint64_t, bool>> found;
            for (const LoaderPosition& position : progress.look(scan_bytes)) {
              found.emplace_back(position.end_bytes, position.mapped);
            }
            return found;
          },
          py::arg("scan_bytes"), NoGil())
      .def(
          "mark_touched",
          [](LoaderProgress& progress, TouchedPages& touched, bool anew) {
            progress.mark_touched(touched.bytes(), anew);
          },
          py::arg("touched"), py::arg("anew"), NoGil());
}

}  // namespace shardahead
