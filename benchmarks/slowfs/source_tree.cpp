#include "source_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <system_error>

namespace slowfs {
namespace {

[[noreturn]] void throw_errno(int error, const std::string& what) {
  throw std::system_error(error, std::generic_category(), what);
}

// openat and fstatat take "." where we say "".
const char* at(const std::string& path) { return path.empty() ? "." : path.c_str(); }

int open_or_throw(int folder_fd, const std::string& path, int flags) {
  const int fd = openat(folder_fd, at(path), flags | O_CLOEXEC);
  if (fd < 0) throw_errno(errno, "open " + path);
  return fd;
}

struct CloseDirectory {
  void operator()(DIR* directory) const noexcept { closedir(directory); }
};

}  // namespace

UniqueFd::~UniqueFd() {
  if (fd_ >= 0) close(fd_);
}

MappedFile::MappedFile(int fd, std::size_t size_bytes) : size_bytes_(size_bytes) {
  if (size_bytes == 0) return;  // mmap takes no length of 0
  void* const start = mmap(nullptr, size_bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (start == MAP_FAILED) throw_errno(errno, "mmap");
  start_ = static_cast<const char*>(start);
}

MappedFile::~MappedFile() {
  if (start_ != nullptr) munmap(const_cast<char*>(start_), size_bytes_);
}

void MappedFile::will_need(std::uint64_t offset, std::uint64_t n_bytes) const noexcept {
  constexpr std::uint64_t kPageBytes = 4096;
  // A READ is at most 1 MiB, and one page more where it does not begin on one.
  std::array<unsigned char, 257> resident{};
  const std::uint64_t begin = offset & ~(kPageBytes - 1);
  const std::uint64_t end = std::min(offset + n_bytes, begin + resident.size() * kPageBytes);
  char* const start = const_cast<char*>(start_) + begin;
  // Asking is cheaper than advising what is there already.
  if (mincore(start, end - begin, resident.data()) != 0) return;
  const auto last = resident.begin() + static_cast<std::ptrdiff_t>((end - begin - 1) / kPageBytes);
  const auto is_missing = [](unsigned char page) { return (page & 1) == 0; };
  if (std::none_of(resident.begin(), last + 1, is_missing)) return;
  // More than the source's readahead, 128 KiB unless someone changed it, is cut off in silence.
  constexpr std::uint64_t kStepBytes = 128ULL * 1024;
  for (std::uint64_t at = 0; at < end - begin; at += kStepBytes) {
    madvise(start + at, std::min(kStepBytes, end - begin - at), MADV_WILLNEED);
  }
}

SourceTree::SourceTree(const std::string& folder, std::uint64_t first_inode)
    : real_folder_(std::filesystem::canonical(folder)),
      folder_(open_or_throw(AT_FDCWD, real_folder_, O_RDONLY | O_DIRECTORY)),
      first_inode_(first_inode) {}

const std::string& SourceTree::path(std::uint64_t inode) const {
  static const std::string root;
  if (inode == kRoot) return root;
  if (inode < first_inode_ || inode - first_inode_ >= paths_.size()) {
    throw_errno(ENOENT, "inode " + std::to_string(inode));
  }
  return paths_[inode - first_inode_];
}

std::string SourceTree::child_path(std::uint64_t parent, std::string_view name) const {
  const std::string& folder = path(parent);
  return folder.empty() ? std::string(name) : folder + "/" + std::string(name);
}

std::uint64_t SourceTree::inode_of(const std::string& path) {
  const auto [found, is_new] = inodes_.try_emplace(path, first_inode_ + paths_.size());
  if (is_new) paths_.push_back(path);
  return found->second;
}

std::string SourceTree::resolve_file(const std::string& path) const {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path real = fs::canonical(real_folder_ / fs::path(path).relative_path(), error);
  if (error) throw std::system_error(error, path);
  const fs::path inside = real.lexically_relative(real_folder_);
  if (*inside.begin() == ".." || !S_ISREG(attributes(inside).st_mode)) throw_errno(EINVAL, path);
  return inside;
}

bool SourceTree::exists(const std::string& path) const {
  return faccessat(folder_.get(), at(path), F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

struct stat SourceTree::attributes(const std::string& path) const {
  struct stat result = {};
  if (fstatat(folder_.get(), at(path), &result, AT_SYMLINK_NOFOLLOW) != 0) {
    throw_errno(errno, "stat " + path);
  }
  return result;
}

std::string SourceTree::read_link(const std::string& path) const {
  std::array<char, PATH_MAX> target{};
  const ssize_t n = readlinkat(folder_.get(), path.c_str(), target.data(), target.size());
  if (n < 0) throw_errno(errno, "readlink " + path);
  return {target.data(), static_cast<std::size_t>(n)};
}

std::vector<DirectoryEntry> SourceTree::list(const std::string& path) const {
  const int fd = open_or_throw(folder_.get(), path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  const std::unique_ptr<DIR, CloseDirectory> directory(fdopendir(fd));
  if (!directory) {
    const int error = errno;
    close(fd);
    throw_errno(error, "list " + path);
  }
  std::vector<DirectoryEntry> entries;
  errno = 0;
  while (const dirent* found = readdir(directory.get())) {
    DirectoryEntry& entry = entries.emplace_back();
    entry.name = found->d_name;
    entry.attributes.st_ino = found->d_ino;
    entry.attributes.st_mode = static_cast<mode_t>(DTTOIF(found->d_type));
  }
  if (errno != 0) throw_errno(errno, "list " + path);
  return entries;
}

const MappedFile& SourceTree::map(std::uint64_t inode) {
  if (const auto found = mapped_.find(inode); found != mapped_.end()) return found->second;
  const std::string& file = path(inode);
  const UniqueFd fd(open_or_throw(folder_.get(), file, O_RDONLY | O_NOFOLLOW));
  const auto size_bytes = static_cast<std::size_t>(attributes(file).st_size);
  return mapped_.try_emplace(inode, fd.get(), size_bytes).first->second;
}

}  // namespace slowfs
