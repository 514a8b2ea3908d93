#include "node/locked_file.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <cerrno>

namespace shardahead {

// Private and read-only: also what is opened with direct_io can be mapped so, and no page is
// copied.
LockedFile::LockedFile(const File& file)
    : path_(file.path()), size_bytes_(file.status().size_bytes) {
  if (size_bytes_ == 0) return;
  void* const mapped = ::mmap(nullptr, size_bytes_, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
  if (mapped == MAP_FAILED) throw IoException(file.error(errno, "mmap", 0));
  memory_ = static_cast<std::byte*>(mapped);
}

LockedFile::~LockedFile() {
  if (memory_ != nullptr) ::munmap(memory_, size_bytes_);
}

void LockedFile::lock(ByteRange range) {
  range = intersect(range, {0, size_bytes_});
  if (range.empty()) return;
  const std::uint64_t begin = align_down(range.offset, page_bytes());
  if (::mlock(memory_ + begin, range.end() - begin) == 0) return;
  IoError error;
  error.errno_value = errno;
  error.operation = "mlock";
  error.path = path_;
  error.offset = range.offset;
  throw IoException(std::move(error));
}

bool locks_beyond_limit() noexcept {
  rlimit before{};
  if (::getrlimit(RLIMIT_MEMLOCK, &before) != 0) return false;
  if (before.rlim_cur == RLIM_INFINITY) return true;
  rlimit none = before;
  none.rlim_cur = 0;
  if (::setrlimit(RLIMIT_MEMLOCK, &none) != 0) return false;
  void* const page =
      ::mmap(nullptr, page_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const bool locks = page != MAP_FAILED && ::mlock(page, page_bytes()) == 0;
  if (page != MAP_FAILED) ::munmap(page, page_bytes());
  ::setrlimit(RLIMIT_MEMLOCK, &before);
  return locks;
}

}  // namespace shardahead
