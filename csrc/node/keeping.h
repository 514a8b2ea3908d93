// keeping: whether a mount keeps the pages that are brought in: FUSE may empty a file's page cache
// at every open(), and some mounts bypass the page cache altogether. Found out on one page, but for
// NFS, which keeps them. Where residency cannot be asked for, or is not told truly, it is unknown.
// Any thread.
#pragma once

#include <functional>
#include <vector>

#include "node/file_io.h"
#include "node/file_table.h"

namespace shardahead {

enum class Keeping {
  unknown,
  keeps,
  emptied_by_open,  // FUSE without FOPEN_KEEP_CACHE: every open() drops all pages of the file
  uncached,         // direct_io and the like: read() leaves no page behind
};

const char* to_string(Keeping keeping) noexcept;

// True only where it is known.
constexpr bool keeps_nothing(Keeping keeping) noexcept {
  return keeping == Keeping::emptied_by_open || keeping == Keeping::uncached;
}

struct KeepingCheck {
  Keeping keeping = Keeping::unknown;
  std::uint64_t read_bytes = 0;  // were brought in to find out
};

// What reading one page of the ranges, one that is not resident, and opening the file once more
// (twice where that looks bad) show. It waits for that page. Never throws: what cannot be read is
// unknown here, and for the fetch to report. `ranges` must not be empty. `told` is asked each time
// before the file is opened, which would empty what others read by now: where they have found that
// it keeps nothing, that is the answer.
KeepingCheck check_keeping(FileIo& io, const File& file, const std::vector<ByteRange>& ranges,
                           const std::function<Keeping()>& told = {}) noexcept;

}  // namespace shardahead
