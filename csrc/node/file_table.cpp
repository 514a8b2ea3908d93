#include "node/file_table.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <exception>
#include <utility>

#include "base/in_parallel.h"

namespace shardahead {
namespace {

const char* irregular_kind(std::uint32_t mode) {
  if (S_ISFIFO(mode)) return "not a regular file: FIFO";
  if (S_ISSOCK(mode)) return "not a regular file: socket";
  if (S_ISCHR(mode)) return "not a regular file: character device";
  if (S_ISBLK(mode)) return "not a regular file: block device";
  return "not a regular file";
}

void require_regular(const std::string& path, const FileStatus& status) {
  if (S_ISREG(status.mode)) return;
  if (S_ISDIR(status.mode)) throw IoException({EISDIR, "open", path, 0, ""});
  throw IoException({EINVAL, "open", path, 0, irregular_kind(status.mode)});
}

// Those on which the inode number of a file is its own for as long as it exists. Others may make
// one up at every look: FUSE, 9p, SMB.
bool keeps_inodes(const File& file) {
  static constexpr std::array<std::uint32_t, 11> kFilesystems{
      0xEF53,      // ext2, ext3, ext4
      0x58465342,  // xfs
      0x9123683E,  // btrfs
      0xF2F52010,  // f2fs
      0x2FC12FC1,  // zfs
      0x01021994,  // tmpfs
      0x794C7630,  // overlay
      0x6969,      // nfs
      0x00C36400,  // ceph
      0x0BD00BD0,  // lustre
      0x47504653,  // gpfs
  };
  struct statfs found{};
  if (::fstatfs(file.descriptor(), &found) < 0) return false;
  return std::ranges::find(kFilesystems, static_cast<std::uint32_t>(found.f_type)) !=
         kFilesystems.end();
}

}  // namespace

IoError was_replaced(const File& file) {
  IoError error = file.error(ESTALE, "open", 0);
  error.detail = "the file was replaced or written to while it was being loaded";
  return error;
}

void require_unchanged(const File& file, const FileStatus& before) {
  const FileStatus& now = file.status();
  if (now.size_bytes < before.size_bytes) {
    IoError error = file.error(ENODATA, "open", now.size_bytes);
    error.detail =
        "the file became shorter: it had " + std::to_string(before.size_bytes) + " bytes";
    throw IoException(std::move(error));
  }
  if (now.size_bytes != before.size_bytes || (now.inode != before.inode && keeps_inodes(file))) {
    throw IoException(was_replaced(file));
  }
}

std::shared_ptr<const File> File::open(FileIo& io, const std::string& path) {
  FileStatus status;
  if (const int result = io.status(path, status); result < 0) {
    throw IoException({-result, "stat", path, 0, ""});
  }
  require_regular(path, status);
  const int descriptor = io.open(path);
  if (descriptor < 0) throw IoException({-descriptor, "open", path, 0, ""});
  FileStatus opened;  // by now another file may have the path
  const int result = io.status(descriptor, opened);
  auto file = std::make_shared<const File>(io, path, descriptor, opened);
  if (result < 0) throw IoException({-result, "fstat", path, 0, ""});
  require_regular(path, opened);
  return file;
}

File::File(FileIo& io, std::string path, int descriptor, const FileStatus& status)
    : io_(io), path_(std::move(path)), descriptor_(descriptor), status_(status) {}

File::~File() {
  io_.close(descriptor_);
  if (fault_descriptor_ >= 0) io_.close(fault_descriptor_);
}

int File::fault_descriptor() const {
  std::call_once(opened_again_, [&] {
    const int descriptor = io_.open(path_);
    FileStatus opened;
    if (descriptor >= 0 &&
        (io_.status(descriptor, opened) < 0 || opened.device != status_.device ||
         opened.inode != status_.inode || opened.size_bytes != status_.size_bytes)) {
      io_.close(descriptor);  // another file has taken the path
      fault_descriptor_ = -ESTALE;
      return;
    }
    if (descriptor >= 0) io_.fadvise_random(descriptor);
    fault_descriptor_ = descriptor;
  });
  return fault_descriptor_;
}

IoError File::error(int errno_value, const char* operation, std::uint64_t offset) const {
  return {errno_value, operation, path_, offset, ""};
}

IoError File::became_shorter(std::uint64_t offset) const {
  IoError found = error(ENODATA, "pread", offset);
  found.detail = "the file became shorter: it had " + std::to_string(status_.size_bytes) +
                 " bytes when it was opened";
  return found;
}

FileTable::FileTable(FileIo& io, const std::vector<std::string>& paths, std::size_t max_open_files,
                     std::uint32_t threads)
    : io_(io), max_open_files_(std::max<std::size_t>(max_open_files, 1)) {
  std::vector<std::optional<Opened>> opened = open_all(paths, threads);
  entries_.reserve(paths.size());
  for (std::size_t i = 0; i < paths.size(); ++i) {
    // What failed beside others may have been for want of descriptors. Else it fails again.
    std::optional<Opened>& found = opened[i];
    if (!found) found.emplace(io_, File::open(io_, paths[i]));
    entries_.push_back({paths[i], std::move(found->real_path), found->status, found->file, 0});
    if (found->file && recent_.size() < max_open_files_) recent_.push_back(found->file);
    found->file.reset();
  }
}

// The first files are read first, and stay open; the later ones wait closed.
std::vector<std::optional<FileTable::Opened>> FileTable::open_all(
    const std::vector<std::string>& paths, std::uint32_t threads) {
  std::vector<std::optional<Opened>> opened(paths.size());
  const auto at_once = std::min<std::size_t>(threads, max_open_files_);
  in_parallel(paths.size(), static_cast<std::uint32_t>(at_once), [&](std::size_t i) {
    try {
      Opened found(io_, File::open(io_, paths[i]));
      if (i >= max_open_files_) found.file.reset();
      opened[i] = std::move(found);
    } catch (const std::exception&) {
      return;
    }
  });
  return opened;
}

std::shared_ptr<const File> FileTable::opened(std::size_t index) {
  const MutexLock lock(mutex_);
  return entries_[index].file.lock();
}

std::shared_ptr<const File> FileTable::acquire(std::size_t index) {
  if (auto file = opened(index)) return file;
  // Opened without the lock: a dead server must not stop those whose files are open.
  auto file = File::open(io_, entries_[index].path);
  require_unchanged(*file, entries_[index].status);
  std::shared_ptr<const File> closed;  // outlives the lock: a close, too, may wait for a server
  const MutexLock lock(mutex_);
  if (auto already = entries_[index].file.lock()) return already;
  entries_[index].file = file;
  closed = keep_open(file);
  return file;
}

void FileTable::renew(std::size_t index, const File& seen) {
  std::shared_ptr<const File> closed;  // outlives the lock, as above
  const MutexLock lock(mutex_);
  Entry& entry = entries_[index];
  closed = entry.file.lock();
  if (entry.renewals == kMaxRenewals || closed.get() != &seen) return;
  ++entry.renewals;
  entry.file.reset();
  std::erase(recent_, closed);
}

std::shared_ptr<const File> FileTable::keep_open(std::shared_ptr<const File> file) {
  recent_.push_back(std::move(file));
  if (recent_.size() <= max_open_files_) return nullptr;
  auto oldest = std::move(recent_.front());
  recent_.pop_front();
  return oldest;
}

std::size_t default_max_open_files() noexcept {
  constexpr std::size_t kMost = 128;  // of two descriptors each
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 16;
  return std::clamp<std::size_t>(limit.rlim_cur / 8, 1, kMost);
}

}  // namespace shardahead
