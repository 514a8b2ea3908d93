// file_table: the files of one plan, checked once before any work begins, then opened when needed.
// Keeps a bounded number of descriptors: a checkpoint may have more shards than a process may have
// descriptors. Construction is for one thread; acquire() is for any.
#pragma once

#include <cerrno>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/thread_safety.h"
#include "node/file_io.h"

namespace shardahead {

// One open regular file; closes it at the end. Any thread.
class File {
 public:
  // Throws IoException where `path` is missing, unreadable or not a regular file.
  static std::shared_ptr<const File> open(FileIo& io, const std::string& path);

  File(FileIo& io, std::string path, int descriptor, const FileStatus& status);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  [[nodiscard]] FileIo& io() const noexcept { return io_; }
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  // The same file opened once more, at the first call, or -errno. The kernel keeps the state of
  // readahead with the open file, and FUSE, when congested, takes advice for a part of the window
  // that the last fault left there, and drops it: so faults have a descriptor to themselves. Where
  // none are of use it is for reads of parts, which bring in nothing ahead of them.
  [[nodiscard]] int fault_descriptor() const;
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] const FileStatus& status() const noexcept { return status_; }

  [[nodiscard]] IoError error(int errno_value, const char* operation, std::uint64_t offset) const;
  // Of a read that found its end at `offset`: ENODATA.
  [[nodiscard]] IoError became_shorter(std::uint64_t offset) const;

 private:
  FileIo& io_;
  std::string path_;
  int descriptor_;
  FileStatus status_;
  mutable std::once_flag opened_again_;
  mutable int fault_descriptor_ = -EBADF;
};

// Bytes of two versions of a file must never be mixed. Throws IoException where the file is not the
// one that it was `before`: ENODATA where it is shorter, ESTALE where it has another size, or
// another inode on a filesystem on which a file keeps its own. The modification time alone proves
// nothing: a touch moves it, and so do caches of object stores that look again. Nor does the inode
// on FUSE: some of its filesystems give another one at every open().
void require_unchanged(const File& file, const FileStatus& before);
// What it throws for another file of the same size.
[[nodiscard]] IoError was_replaced(const File& file);

class FileTable {
 public:
  // Opens every file once, up to `threads` at a time, and throws the IoException of the first in
  // order that cannot be. Each path is an entry: inode numbers do not tell which of them are one
  // file, for some mounts give the same to all.
  FileTable(FileIo& io, const std::vector<std::string>& paths, std::size_t max_open_files,
            std::uint32_t threads = 1);

  [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }
  [[nodiscard]] const FileStatus& status(std::size_t index) const { return entries_[index].status; }
  [[nodiscard]] std::uint64_t size_bytes(std::size_t index) const {
    return entries_[index].status.size_bytes;
  }
  [[nodiscard]] const std::string& path(std::size_t index) const { return entries_[index].path; }
  // Where it was found, links resolved; empty where that is not known.
  [[nodiscard]] const std::string& real_path(std::size_t index) const {
    return entries_[index].real_path;
  }

  // The file, opened again if it had to be closed. Throws IoException, ENODATA where it is shorter
  // by then, ESTALE where it is another one (require_unchanged). The result keeps it open.
  std::shared_ptr<const File> acquire(std::size_t index);
  // The same where it is open; else nothing, at once.
  std::shared_ptr<const File> opened(std::size_t index);
  // The next acquire() opens the file anew, a few times at most: reads, too, leave a window behind
  // that makes FUSE drop advice.
  // Nothing where `seen` is not what acquire() gives any more: another thread was faster.
  void renew(std::size_t index, const File& seen);

 private:
  static constexpr std::uint32_t kMaxRenewals = 3;

  struct Entry {
    std::string path;
    std::string real_path;
    FileStatus status;  // when the table was made
    std::weak_ptr<const File> file;
    std::uint32_t renewals = 0;
  };
  struct Opened {
    Opened(FileIo& io, std::shared_ptr<const File> opened)
        : file(std::move(opened)),
          real_path(io.real_path(file->descriptor())),
          status(file->status()) {}
    std::shared_ptr<const File> file;
    std::string real_path;
    FileStatus status;
  };

  std::vector<std::optional<Opened>> open_all(const std::vector<std::string>& paths,
                                              std::uint32_t threads);

  // Gives back the file that has to be closed for it, if any.
  std::shared_ptr<const File> keep_open(std::shared_ptr<const File> file) REQUIRES(mutex_);

  FileIo& io_;
  std::size_t max_open_files_;
  Mutex mutex_;  // guards recent_ and the weak pointers of entries_
  std::vector<Entry> entries_;
  std::deque<std::shared_ptr<const File>> recent_ GUARDED_BY(mutex_);
};

// Files of two descriptors each: together a quarter of what the process may open.
std::size_t default_max_open_files() noexcept;

}  // namespace shardahead
