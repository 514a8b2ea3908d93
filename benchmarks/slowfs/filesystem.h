// filesystem: answers the kernel's FUSE requests from a SourceTree, READs at the pace of the link.
// Every change is refused with EROFS. All handlers run on the one thread that reads requests, so
// nothing here is locked; only finished replies go to the threads of the queue.
#pragma once

#include <fuse_lowlevel.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "control_folder.h"
#include "open_counts.h"
#include "options.h"
#include "reply_queue.h"
#include "source_tree.h"

namespace slowfs {

class Filesystem {
 public:
  // `shared`: the link, where it is not this mount's own; outlives this. Throws std::system_error
  // where the source cannot be opened.
  Filesystem(const Options& options, FreeFrom* shared);
  // Throws std::system_error where a path is not there.
  void execute(const std::vector<Command>& commands) { control_.execute(commands); }

  static const fuse_lowlevel_ops& operations();

  [[nodiscard]] bool is_initialized() const noexcept { return is_initialized_; }
  // After the last fork: starts the threads that send delayed replies.
  void start(fuse_session* session);
  // Delayed replies are given up, not waited for.
  void stop() noexcept { queue_.reset(); }

  void init(fuse_conn_info* connection) noexcept;
  void lookup(fuse_req_t request, fuse_ino_t parent, const char* name);
  void getattr(fuse_req_t request, fuse_ino_t inode, fuse_file_info*);
  void setattr(fuse_req_t request, fuse_ino_t inode, struct stat*, int, fuse_file_info*);
  void readlink(fuse_req_t request, fuse_ino_t inode);
  void statfs(fuse_req_t request, fuse_ino_t inode);
  void opendir(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info);
  void readdir(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
               fuse_file_info* info);
  void open(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info);
  void read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, fuse_file_info* info);
  void write(fuse_req_t request, fuse_ino_t inode, const char* text, size_t size, off_t,
             fuse_file_info*);
  void flush(fuse_req_t request, fuse_ino_t inode, fuse_file_info*);
  void release(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info);
  // The answer to any handler above that throws.
  void fail(fuse_req_t request, int error) noexcept;

 private:
  using Listing = std::vector<DirectoryEntry>;
  using Handle = std::variant<Listing, std::string>;

  std::uint64_t keep(Handle handle);
  void open_control(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info);
  void read_file(fuse_req_t request, fuse_ino_t inode, std::uint64_t offset, std::uint64_t size);
  void empty_after_close(fuse_ino_t inode);
  struct stat attributes(fuse_ino_t inode) const;
  void reply_metadata(fuse_req_t request, fuse_ino_t inode, const std::function<void()>& send);

  const Options options_;
  SourceTree tree_;
  Filer filer_;
  ControlFolder control_;
  fuse_session* session_ = nullptr;
  bool is_initialized_ = false;
  std::uint64_t next_handle_ = 1;
  std::unordered_map<std::uint64_t, Handle> handles_;
  OpenCounts opens_;
  std::unique_ptr<ReplyQueue> queue_;
};

}  // namespace slowfs
