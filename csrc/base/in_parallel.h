// in_parallel: calls that each wait for a server, made some at a time. Knows nothing of what they
// ask for. The calling thread makes some of them itself, and comes back when all have been made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace shardahead {

// Of the metadata of files: a round trip each, so a thousand shards should not take a thousand.
inline constexpr std::uint32_t kLookupThreads = 16;

// Calls `call(i)` once for every i below `count`, in ascending order but for those under way at the
// same time: `threads` of them at most, fewer where there are few calls or no threads to be had.
// The first exception that `call` throws is thrown once all calls have ended; none begins after it.
void in_parallel(std::size_t count, std::uint32_t threads,
                 const std::function<void(std::size_t)>& call);

}  // namespace shardahead
