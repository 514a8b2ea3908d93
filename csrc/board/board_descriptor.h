// board_descriptor: the open file under a board, of which no forked child keeps a copy. The locks
// belong to the open file description, which descriptors and mappings share: a child that had one
// would keep a dead parent alive. Knows nothing of what is locked, or of the contents. Any thread.
#pragma once

#include <cstddef>

#include "base/process_mark.h"

namespace shardahead {

class BoardDescriptor {
 public:
  // As open(2). Without a file, errno says why. A fork meanwhile waits: the file should be in
  // shared memory. Throws std::bad_alloc.
  BoardDescriptor(const char* path, int flags);
  BoardDescriptor(BoardDescriptor&& other) noexcept;
  BoardDescriptor& operator=(BoardDescriptor&&) = delete;
  BoardDescriptor(const BoardDescriptor&) = delete;
  BoardDescriptor& operator=(const BoardDescriptor&) = delete;
  // Gives up all locks and closes it; in a forked child that has happened, at the fork.
  ~BoardDescriptor();

  // -1 without a file.
  [[nodiscard]] int get() const noexcept { return descriptor_; }
  // Else this is a forked child.
  [[nodiscard]] bool is_here() const noexcept { return process_.is_here(); }
  // The whole file, shared, and not inherited by children. Without it `failed` is the call that
  // failed, and errno says why.
  [[nodiscard]] std::byte* map(std::size_t size_bytes, const char*& failed) const noexcept;

 private:
  int descriptor_ = -1;
  ProcessMark process_;
};

}  // namespace shardahead
