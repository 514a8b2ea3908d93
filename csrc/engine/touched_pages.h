// touched_pages: looks at which pages of the mappings that consumers of this process were given
// they have used. What they let go of is looked at then, before it can be given up or unmapped;
// what they still hold, whenever one asks. Knows nothing of who reads through other mappings. Any
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/byte_range.h"
#include "base/thread_safety.h"
#include "node/mapped_file.h"
#include "node/proc_self.h"
#include "node/touched_bytes.h"

namespace shardahead {

class TouchedPages {
 public:
  // `root` stands before the path below /proc: for tests.
  explicit TouchedPages(const std::vector<std::uint64_t>& sizes, const std::string& root = "");

  [[nodiscard]] TouchedBytes& bytes() noexcept { return bytes_; }
  // Whether the kernel tells.
  [[nodiscard]] bool can_look() const noexcept { return can_look_; }
  // Ranges that consumers hold at present.
  [[nodiscard]] std::uint64_t held() const;

  // A consumer is given a range of a file that is mapped.
  void hold(std::size_t file, const std::shared_ptr<MappedFile>& mapped);
  // It lets go of it. Without memory for more it is not looked at.
  void release(std::size_t file, const MappedFile& mapped, ByteRange range) noexcept;
  // Looks at all that is held.
  void look();

 private:
  void look_at(std::size_t file, const MappedFile& mapped, ByteRange range) REQUIRES(mutex_);

  TouchedBytes bytes_;
  const bool can_look_;
  mutable Mutex mutex_;
  PageMap pages_ GUARDED_BY(mutex_);
  std::vector<std::weak_ptr<MappedFile>> mapped_ GUARDED_BY(mutex_);  // by file
  std::uint64_t held_ GUARDED_BY(mutex_) = 0;
};

}  // namespace shardahead
