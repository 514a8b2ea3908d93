// probe: what a measurement of a mount may read: the ranges of a file of which nothing is in the
// page cache, and how long one small read of them takes. Rates are the engine's to measure. Any
// thread.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/byte_range.h"
#include "node/file_io.h"
#include "node/file_table.h"

namespace shardahead {

// What is wholly absent is looked for in steps of this size.
inline constexpr std::uint64_t kProbeStepBytes = kMiB;

// In order and merged, of `limit_bytes` together at most. Nothing where residency is not known.
std::optional<std::vector<ByteRange>> absent_ranges(FileIo& io, const File& file,
                                                    std::uint64_t limit_bytes);

// How long one page at each of the offsets took to come, in seconds. Pages that are resident, or of
// which that is not known, are left out. Throws IoException where one cannot be read.
std::vector<double> read_latencies(FileIo& io, const File& file,
                                   const std::vector<std::uint64_t>& offsets);

}  // namespace shardahead
