// locked_file: a file whose pages stay in memory, because this process has mapped and locked them.
// What was cut off a file meanwhile is no longer locked, and nothing here reads it. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/byte_range.h"
#include "node/file_table.h"

namespace shardahead {

class LockedFile {
 public:
  // Maps the whole file, as long as it is now, and locks nothing yet. Throws IoException.
  explicit LockedFile(const File& file);
  ~LockedFile();
  LockedFile(const LockedFile&) = delete;
  LockedFile& operator=(const LockedFile&) = delete;

  [[nodiscard]] std::uint64_t size_bytes() const noexcept { return size_bytes_; }
  // Brings the range in where it is not, and waits for it: page by page, so it had better be there.
  // Throws IoException: ENOMEM beyond RLIMIT_MEMLOCK, and where a page cannot be read or was cut
  // off; EAGAIN where there is no memory for one.
  void lock(ByteRange range);

 private:
  const std::string path_;
  const std::uint64_t size_bytes_;
  std::byte* memory_ = nullptr;
};

// Whether this process may lock more than RLIMIT_MEMLOCK says: asked of the kernel, because in a
// user namespace a capability does not count for that. For a moment the soft limit is 0, so it is
// for a process whose other threads lock nothing.
[[nodiscard]] bool locks_beyond_limit() noexcept;

}  // namespace shardahead
