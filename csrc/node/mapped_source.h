// mapped_source: a file mapped once, from which ranges are copied. Where a mount keeps no pages for
// read(), those that a mapping faults in are still shared: ranks of a node that copy the same
// ranges at about the same time fetch them once. Opens nothing, so it empties no page cache. Any
// thread.
#pragma once

#include <cstddef>

#include "node/file_table.h"

namespace shardahead {

class MappedSource {
 public:
  // The whole file, as long as it is now. Throws IoException.
  explicit MappedSource(const File& file);
  ~MappedSource();
  MappedSource(const MappedSource&) = delete;
  MappedSource& operator=(const MappedSource&) = delete;

  [[nodiscard]] std::uint64_t size_bytes() const noexcept { return size_bytes_; }
  // How many bytes from the start of the range were copied: fewer where one cannot be read, none
  // where the kernel does not let us. Never a signal, unlike reading the mapping itself.
  [[nodiscard]] std::uint64_t copy(ByteRange range, std::byte* to) const noexcept;

 private:
  std::byte* memory_ = nullptr;
  std::uint64_t size_bytes_ = 0;
};

}  // namespace shardahead
