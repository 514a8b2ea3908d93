// file_io: the one seam through which the core touches files; a system implementation here, a
// faulty twin in faulty_file_io.h. It decides nothing. Every method may be called from any thread,
// never throws, retries EINTR, and returns a result >= 0 or -errno.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/byte_range.h"

namespace shardahead {

// What one fault in a mapping of huge pages brings in: two of them.
inline constexpr std::uint64_t kHugePageBytes = 2 * kMiB;
inline constexpr std::uint64_t kPopulateBytes = 2 * kHugePageBytes;
// What fault_in_huge_pages() maps for it, whatever the range: shared, read-only, from a multiple of
// kHugePageBytes. The length is no such multiple, so two of them never join into one mapping, and
// loader_progress can tell each from what a loader has mapped.
inline constexpr std::uint64_t kPopulateMappedBytes = kPopulateBytes + 4 * kKiB;

// What a file is mapped for: to be used where it lies, or for copies out of it alone.
enum class MappedFor { use, copies };

struct FileStatus {
  std::uint64_t size_bytes = 0;
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::int64_t modified_nanoseconds = 0;
  std::uint32_t mode = 0;  // st_mode, with the file type
  // Of an open file: the kernel tells this process what is resident of it, as it does to who owns
  // it or may write to it, in the kernel's own eyes. To others mincore claims every page.
  bool owned_or_writable = false;
  // Of an open file: it lies on an overlay. Its pages belong to the file of the layer below, where
  // mincore finds them and cachestat does not.
  bool overlay = false;
};

class FileIo {
 public:
  FileIo() = default;
  FileIo(const FileIo&) = delete;
  FileIo& operator=(const FileIo&) = delete;
  virtual ~FileIo() = default;

  // Follows symlinks; never opens, so that a FIFO or a tape drive is left alone.
  virtual int status(const std::string& path, FileStatus& status) noexcept = 0;
  virtual int status(int descriptor, FileStatus& status) noexcept = 0;
  // Read-only, close-on-exec, and without waiting for a writer if the path became a FIFO. Waits for
  // whoever holds a lease on the file.
  virtual int open(const std::string& path) noexcept = 0;
  virtual int close(int descriptor) noexcept = 0;
  // Where the kernel has an open file now, links resolved, as this process would name it. Empty
  // where that is not told.
  [[nodiscard]] virtual std::string real_path(int descriptor) noexcept;
  // May be short; 0 is end of file.
  virtual std::int64_t pread(int descriptor, std::byte* buffer, ByteRange range) noexcept = 0;
  virtual int fadvise_willneed(int descriptor, ByteRange range) noexcept = 0;
  virtual int fadvise_dontneed(int descriptor, ByteRange range) noexcept = 0;
  virtual int readahead(int descriptor, ByteRange range) noexcept = 0;
  // From now on a read through this descriptor brings in what it asks for, and nothing ahead of it.
  virtual int fadvise_random(int descriptor) noexcept = 0;
  // As it was opened, again.
  virtual int fadvise_normal(int descriptor) noexcept = 0;
  // From now on a fault or a read through it brings in twice as much ahead as the mount says.
  virtual int fadvise_sequential(int descriptor) noexcept = 0;
  // Faults in the first page of the range through a mapping that asks for huge pages, and waits for
  // it. Kernels since 5.18 read two huge pages for it, or one where the range is no longer than
  // that, beginning at the 2 MiB boundary below, whatever the mount's readahead is. Needs pages of
  // 4 KiB and MADV_POPULATE_READ, Linux 5.14: a page that cannot be read gives -EFAULT, no signal.
  virtual int fault_in_huge_pages(int descriptor, ByteRange range) noexcept = 0;
  // Waits until what was written to the file has reached it, so that its pages can be dropped.
  virtual int fdatasync(int descriptor) noexcept = 0;
  // Pages of the range in the page cache, pages still being read included; cachestat(2).
  virtual std::int64_t cachestat(int descriptor, ByteRange range) noexcept = 0;
  // Pages of the range that are up to date; mincore(2). It claims all pages of a file that is
  // neither owned nor writable: see residency.h. The offset must be page-aligned. What it maps for
  // that is without any access: see loader_progress.
  virtual std::int64_t mincore(int descriptor, ByteRange range) noexcept = 0;

  // The first `length_bytes` of the file in memory, in private. For `use`: readable, and writable
  // without a change to the file. For `copies`: a fault of theirs brings in what
  // fault_in_huge_pages() does. The mapping keeps the file, without its descriptor. `memory` is set
  // where it succeeds.
  virtual int map(int descriptor, std::uint64_t length_bytes, MappedFor use,
                  std::byte*& memory) noexcept = 0;
  // All that one map() gave. May wait for a server: the last to unmap a closed file ends it.
  virtual int unmap(std::byte* memory, std::uint64_t length_bytes) noexcept = 0;
  // Faults in these pages of a mapping, to be read: -EFAULT where one cannot be, -EINVAL before
  // Linux 5.14. They begin at a page, as for give_up().
  virtual int fault_in(std::byte* pages, std::uint64_t length_bytes) noexcept = 0;
  // Gives up this process's hold on these pages of a mapping, and what was written to them.
  virtual int give_up(std::byte* pages, std::uint64_t length_bytes) noexcept = 0;
  // Bytes of a mapping, up to the first that cannot be read: -EFAULT where that is the first one,
  // never a signal. -EPERM where the kernel does not let us.
  virtual std::int64_t copy_mapped(const std::byte* from, std::uint64_t length_bytes,
                                   std::byte* to) noexcept = 0;
};

// Stateless and never destroyed: worker threads may still be in it while the process exits.
FileIo& system_file_io() noexcept;

std::uint64_t page_bytes() noexcept;

// Reads the whole range, through short reads. Fewer bytes than asked for mean end of file, or an
// error: `done` says where it lies.
int pread_full(FileIo& io, int descriptor, std::byte* buffer, ByteRange range,
               std::uint64_t& done) noexcept;

}  // namespace shardahead
