// mapped_file: a file mapped privately, as safetensors maps it: readable, and writable without a
// change to the file. Says nothing about which of its bytes are in the page cache. Any thread.
#pragma once

#include <cstddef>
#include <memory>

#include "node/file_table.h"

namespace shardahead {

class MappedFile {
 public:
  // The whole file, as long as it is now. Throws IoException.
  explicit MappedFile(const File& file);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  [[nodiscard]] std::byte* memory() const noexcept { return memory_; }
  [[nodiscard]] std::uint64_t size_bytes() const noexcept { return size_bytes_; }

  // Faults in every page of the range, to be read. 0, or -errno: -EFAULT where one cannot be read,
  // -EINVAL before Linux 5.14.
  [[nodiscard]] int bring_in(ByteRange range) const noexcept;
  // Ends it without waiting for anyone, if no one else has it. Its pages can be dropped then.
  static void let_go(std::shared_ptr<MappedFile> mapped) noexcept;
  // Gives up this process's hold on the whole pages of the range, so that they can be dropped.
  // What was written to them is lost: no one may hold them any more.
  void give_up(ByteRange range) const noexcept;

 private:
  std::byte* memory_ = nullptr;
  std::uint64_t size_bytes_ = 0;
};

}  // namespace shardahead
