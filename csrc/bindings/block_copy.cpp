// block_copy: bytes of one file into another, both of which Python keeps open, and their digest.
#include "node/block_copy.h"

#include "bindings/bindings.h"

namespace shardahead {
namespace {

std::uint64_t digest_or_throw(const BlockCopy& done, const std::string& from,
                              const std::string& to) {
  if (done.errno_value == 0) return done.digest;
  const char* operation = done.writing ? "pwrite" : "pread";
  std::string detail;
  if (done.errno_value == ENODATA) detail = "the file became shorter";
  throw IoException({done.errno_value, operation, done.writing ? to : from, done.offset, detail});
}

std::uint64_t copy(int from, const std::string& from_path, int to, const std::string& to_path,
                   std::uint64_t offset, std::uint64_t length) {
  return digest_or_throw(
      copy_block(system_file_io(), system_file_writer(), from, to, {offset, length}), from_path,
      to_path);
}

std::uint64_t digest(int descriptor, const std::string& path, std::uint64_t offset,
                     std::uint64_t length) {
  return digest_or_throw(digest_block(system_file_io(), descriptor, {offset, length}), path, path);
}

// Of bytes that lie in one piece. What they are of the caller holds until this returns.
std::uint64_t digest_of_buffer(const py::buffer& buffer) {
  Py_buffer view;
  if (PyObject_GetBuffer(buffer.ptr(), &view, PyBUF_SIMPLE) != 0) throw py::error_already_set();
  std::uint64_t found = 0;
  {
    const GilReleased released;
    found =
        digest_of(static_cast<const std::byte*>(view.buf), static_cast<std::uint64_t>(view.len));
  }
  PyBuffer_Release(&view);
  return found;
}

}  // namespace

void bind_block_copy(py::module_& module) {
  module.def("copy_block", &copy, py::arg("source"), py::arg("source_path"), py::arg("target"),
             py::arg("target_path"), py::arg("offset"), py::arg("length"), NoGil());
  module.def("digest_block", &digest, py::arg("descriptor"), py::arg("path"), py::arg("offset"),
             py::arg("length"), NoGil());
  module.def("digest_of", &digest_of_buffer, py::arg("bytes"));
}

}  // namespace shardahead
