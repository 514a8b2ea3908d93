// fetch_result: what became of a range that was to be brought in, and how much of it a participant
// counts as its own. Plain values: nothing here does I/O. Any thread.
#pragma once

#include <cstdint>
#include <optional>

#include "base/error.h"

namespace shardahead {

struct FetchResult {
  std::uint64_t resident_bytes = 0;  // were in the page cache before
  std::uint64_t shared_bytes = 0;    // others of the node had brought in before
  std::uint64_t read_bytes = 0;      // were brought in
  std::uint64_t lost_bytes = 0;      // of these: advised, did not arrive, so read with pread
  std::uint64_t failed_bytes = 0;
  std::uint64_t faulted_bytes = 0;              // seen to come by faults, before it was waited for
  bool cancelled = false;                       // the rest was left alone
  bool advice_dropped = false;                  // much of it: the file had better be opened anew
  bool advice_refused = false;                  // some of it, with an error
  bool residency_known = true;                  // else what was read may have been resident
  std::optional<IoError> error = std::nullopt;  // the first
};

// Of the block `noted_bytes` were resident before anyone read near it. What more was found came
// with what was read, and counts as read; as shared where others were done with the block before.
// What is left of `noted_bytes` belongs to the next range.
void count_noted(FetchResult& result, std::uint64_t& noted_bytes, bool done_before) noexcept;

// A fetch rounds outwards to pages, and may bring in what others want. Of its counters remains
// what this participant asked for: `most_bytes` in all, the resident bytes first, then those that
// others or it brought in, then those that failed.
void count_at_most(FetchResult& result, std::uint64_t most_bytes) noexcept;

}  // namespace shardahead
