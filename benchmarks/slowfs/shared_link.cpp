#include "shared_link.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace slowfs {
namespace {

[[noreturn]] void fail(int error, const std::string& path) {
  throw std::system_error(error, std::generic_category(), path);
}

void* mapped(int descriptor, const std::string& path) {
  struct stat found = {};
  if (fstat(descriptor, &found) != 0) fail(errno, path);
  // Whoever else is at it does the same: a file only grows here, by zeros.
  if (found.st_size < static_cast<off_t>(sizeof(FreeFrom)) &&
      ftruncate(descriptor, sizeof(FreeFrom)) != 0) {
    fail(errno, path);
  }
  void* const memory =
      mmap(nullptr, sizeof(FreeFrom), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (memory == MAP_FAILED) fail(errno, path);
  return memory;
}

}  // namespace

SharedLink::SharedLink(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) fail(errno, path);
  try {
    free_from_ = static_cast<FreeFrom*>(mapped(descriptor, path));
  } catch (...) {
    close(descriptor);
    throw;
  }
  close(descriptor);
}

SharedLink::~SharedLink() { munmap(free_from_, sizeof(FreeFrom)); }

}  // namespace slowfs
