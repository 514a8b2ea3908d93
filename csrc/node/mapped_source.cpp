#include "node/mapped_source.h"

#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>

namespace shardahead {

// Private: a file opened with direct_io can be mapped in no other way. Advised for huge pages, a
// fault brings in 4 MiB whatever the mount's readahead is; see FileIo::fault_in_huge_pages.
MappedSource::MappedSource(const File& file) : size_bytes_(file.status().size_bytes) {
  if (size_bytes_ == 0) return;
  void* mapped = ::mmap(nullptr, size_bytes_, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
  if (mapped == MAP_FAILED) throw IoException(file.error(errno, "mmap", 0));
  memory_ = static_cast<std::byte*>(mapped);
  ::madvise(mapped, size_bytes_, MADV_HUGEPAGE);
}

MappedSource::~MappedSource() {
  if (memory_ != nullptr) ::munmap(memory_, size_bytes_);
}

std::uint64_t MappedSource::copy(ByteRange range, std::byte* to) const noexcept {
  range = intersect(range, {0, size_bytes_});
  if (range.empty()) return 0;
  const iovec target{to, range.length};
  const iovec source{memory_ + range.offset, range.length};
  // The kernel's copy fails with EFAULT where ours would die of SIGBUS.
  const ssize_t copied = ::process_vm_readv(::getpid(), &target, 1, &source, 1, 0);
  // What is mapped here is reclaimed last, and no one reads it again from here.
  const std::uint64_t begin = align_down(range.offset, page_bytes());
  const std::uint64_t end = std::min(align_up(range.end(), page_bytes()), size_bytes_);
  ::madvise(memory_ + begin, end - begin, MADV_DONTNEED);
  return static_cast<std::uint64_t>(std::max<ssize_t>(copied, 0));
}

}  // namespace shardahead
