// source_tree: the folder that is served, addressed by inode number: names, attributes, listings,
// mapped files. Knows nothing of FUSE, rates or faults. Every call returns or throws errno as
// std::system_error. Not thread-safe: used by the request thread alone.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace slowfs {

class UniqueFd {
 public:
  explicit UniqueFd(int fd) noexcept : fd_(fd) {}
  ~UniqueFd();
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  [[nodiscard]] int get() const noexcept { return fd_; }

 private:
  const int fd_;
};

struct DirectoryEntry {
  std::string name;
  struct stat attributes = {};  // inode number and type only
};

class MappedFile {
 public:
  MappedFile(int fd, std::size_t size_bytes);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  // To be handed to system calls, which report EFAULT if the file has shrunk; never to be read
  // through the pointer, which would be SIGBUS.
  [[nodiscard]] std::span<const char> bytes() const noexcept { return {start_, size_bytes_}; }
  // Starts reading a range that is not in memory, and returns at once.
  void will_need(std::uint64_t offset, std::uint64_t n_bytes) const noexcept;

 private:
  const char* start_ = nullptr;
  std::size_t size_bytes_;
};

// A node is a path, never forgotten: its number and its mapping stay valid for as long as the
// mount lives, and memory is bounded by the number of files in the source.
class SourceTree {
 public:
  static constexpr std::uint64_t kRoot = 1;

  // New nodes, other than the root, are numbered from `first_inode` on.
  SourceTree(const std::string& folder, std::uint64_t first_inode);

  // The path relative to the folder, without a leading slash; "" is the folder itself.
  [[nodiscard]] const std::string& path(std::uint64_t inode) const;
  [[nodiscard]] std::string child_path(std::uint64_t parent, std::string_view name) const;
  // The same number for the same path each time.
  std::uint64_t inode_of(const std::string& path);
  // The path of the regular file that `path` leads to, by way of links if need be; EINVAL for
  // anything else, or outside of the folder.
  [[nodiscard]] std::string resolve_file(const std::string& path) const;

  [[nodiscard]] bool exists(const std::string& path) const;
  [[nodiscard]] struct stat attributes(const std::string& path) const;
  [[nodiscard]] std::string read_link(const std::string& path) const;
  [[nodiscard]] std::vector<DirectoryEntry> list(const std::string& path) const;
  // Mapped on the first call.
  const MappedFile& map(std::uint64_t inode);
  [[nodiscard]] int folder_fd() const noexcept { return folder_.get(); }

 private:
  std::string real_folder_;  // no links in it
  UniqueFd folder_;
  std::uint64_t first_inode_;
  std::vector<std::string> paths_;  // by inode - first_inode
  std::unordered_map<std::string, std::uint64_t> inodes_;
  std::unordered_map<std::uint64_t, MappedFile> mapped_;
};

}  // namespace slowfs
