// io_priority: how urgent the reads of a thread are to the disks of this node. Threads that it
// starts from then on are as it is. Any thread.
#pragma once

namespace shardahead {

// To be read for last: in the idle class, or where that is refused at the least of the usual one.
// 0, or -errno.
int lower_io_priority() noexcept;
// Of the calling thread: "none" where it follows its nice value, "realtime", "best_effort", "idle";
// "unknown" where the kernel does not say.
const char* io_priority_class() noexcept;

}  // namespace shardahead
