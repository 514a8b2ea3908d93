#include "node/mapped_file.h"

#include <sys/mman.h>

#include <utility>

#include "base/let_go.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22  // Linux 5.14
#endif

namespace shardahead {

// MAP_NORESERVE: a file larger than memory could else not be mapped writable.
MappedFile::MappedFile(const File& file) : size_bytes_(file.status().size_bytes) {
  if (size_bytes_ == 0) return;
  void* mapped = ::mmap(nullptr, size_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE,
                        file.descriptor(), 0);
  if (mapped == MAP_FAILED) throw IoException(file.error(errno, "mmap", 0));
  memory_ = static_cast<std::byte*>(mapped);
}

MappedFile::~MappedFile() {
  if (memory_ != nullptr) ::munmap(memory_, size_bytes_);
}

int MappedFile::bring_in(ByteRange range) const noexcept {
  const std::uint64_t begin = align_down(range.offset, page_bytes());
  const std::uint64_t end = align_up(range.end(), page_bytes());
  if (range.empty()) return 0;
  while (::madvise(memory_ + begin, end - begin, MADV_POPULATE_READ) < 0) {
    if (errno != EINTR) return -errno;
  }
  return 0;
}

// The last to unmap an open file closes it, and NFS waits for the answer.
void MappedFile::let_go(std::shared_ptr<MappedFile> mapped) noexcept {
  if (mapped.use_count() != 1) return;
  mapped->give_up({0, mapped->size_bytes_});
  let_go_elsewhere(std::move(mapped));
}

void MappedFile::give_up(ByteRange range) const noexcept {
  const std::uint64_t begin = align_up(range.offset, page_bytes());
  // Behind the last byte of the file its last page belongs to no one else.
  const std::uint64_t end = range.end() >= size_bytes_ ? align_up(size_bytes_, page_bytes())
                                                       : align_down(range.end(), page_bytes());
  if (begin < end) ::madvise(memory_ + begin, end - begin, MADV_DONTNEED);
}

}  // namespace shardahead
