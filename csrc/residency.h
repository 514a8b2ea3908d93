// residency: how much of a file is in the page cache, or that this cannot be known, and why.
// Never a guess: cachestat(2), else mincore(2) where the kernel tells the truth (and on overlays,
// where cachestat does not), else unknown.
// Any thread.
#pragma once

#include <cstdint>
#include <optional>

#include "file_io.h"
#include "file_table.h"

namespace shardahead {

enum class ResidencySource { cachestat, mincore, unknown };

const char* to_string(ResidencySource source) noexcept;

struct Residency {
  std::optional<std::uint64_t> resident_bytes;
  ResidencySource source = ResidencySource::unknown;
  int errno_value = 0;      // of the call that was refused
  const char* reason = "";  // why it is unknown
};

// Counts whole pages, cut to the range. Pages still being read count with cachestat only.
Residency residency(FileIo& io, const File& file, ByteRange range) noexcept;
Residency residency(FileIo& io, const File& file) noexcept;

// Bytes of the range that can be used at once: unlike with residency(), pages that are still being
// read do not count, nor do those whose read failed, which stay in the page cache. Nothing where
// that is not known.
std::optional<std::uint64_t> up_to_date_bytes(FileIo& io, const File& file,
                                              ByteRange range) noexcept;

// Asks the kernel to drop the pages of the range; those mapped or dirty stay. Returns 0 or -errno.
// What was written to the file is written back first: a dirty page cannot be dropped.
int evict(FileIo& io, const File& file, ByteRange range) noexcept;

}  // namespace shardahead
