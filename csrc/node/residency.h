// residency: how much of a file is in the page cache, or that this cannot be known, and why.
// Never a guess: cachestat(2), else mincore(2) where the kernel tells the truth (and on overlays,
// where cachestat does not), else unknown. cachestat counts pages that exist, in a hundredth of the
// time that mincore takes for those that can be used.
// Any thread.
#pragma once

#include <cstdint>
#include <optional>

#include "node/file_io.h"
#include "node/file_table.h"

namespace shardahead {

enum class ResidencySource { cachestat, mincore, unknown };

const char* to_string(ResidencySource source) noexcept;

struct Residency {
  std::optional<std::uint64_t> resident_bytes = std::nullopt;
  // Exist and cannot be used: they are being read, or their read failed. Told by
  // usable_residency().
  std::optional<std::uint64_t> pending_bytes = std::nullopt;
  ResidencySource source = ResidencySource::unknown;
  int errno_value = 0;      // of cachestat, where it did not answer; EOPNOTSUPP of an overlay
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

// Of the whole file for who is told: resident_bytes are those that can be used, the others pending.
// Both count where mincore cannot be asked, and pending_bytes is not known then.
Residency usable_residency(FileIo& io, const File& file) noexcept;

// Asks the kernel to drop the pages of the range; those mapped or dirty stay. Returns 0 or -errno.
// What was written to the file is written back first: a dirty page cannot be dropped.
int evict(FileIo& io, const File& file, ByteRange range) noexcept;

}  // namespace shardahead
