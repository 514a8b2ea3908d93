// mapped_source: a file mapped once, from which ranges are copied. Where a mount keeps no pages for
// read(), those that a mapping faults in are still shared: ranks of a node that copy the same
// ranges at about the same time fetch them once. Opens nothing, so it empties no page cache. Any
// thread.
#pragma once

#include <cstddef>

#include "node/mapping.h"

namespace shardahead {

class MappedSource : public Mapping {
 public:
  // The whole file, as long as it is now. Throws IoException.
  explicit MappedSource(const File& file) : Mapping(file, MappedFor::copies) {}

  // How many bytes from the start of the range were copied: fewer where one cannot be read, none
  // where the kernel does not let us. Never a signal, unlike reading the mapping itself.
  [[nodiscard]] std::uint64_t copy(ByteRange range, std::byte* to) const noexcept;
};

}  // namespace shardahead
