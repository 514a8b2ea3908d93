// page_cache: makes the measured files cold or warm, and asks the kernel whether they are. What it
// cannot prove it says, with the reason. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "node/file_table.h"
#include "request_counter.h"
#include "workload.h"

namespace shardahead::bench {

struct Found {
  std::optional<std::uint64_t> resident_bytes;  // of the measured ones; nothing where unknown
  std::string reason;                           // why it is unknown
};

// `files` holds the workload's files, in its order.
Found resident_in(FileTable& files, const Workload& workload);

struct Prepared {
  bool ready = false;  // proved
  Found found;
  std::string reason;  // why it is not ready
};

// Drops the files from the page cache, again and again for 2 s as long as anything stays: pages
// that are being read cannot be dropped until they have come.
Prepared make_cold(FileTable& files, const Workload& workload,
                   const std::vector<MountUsed>& mounts);

// Brings all of it in.
Prepared make_warm(FileTable& files, const Workload& workload, const RequestCounters& counters);

// "process 123 (python) has model.safetensors mapped", where one of those whose mappings may be
// seen here has; else empty.
std::string who_maps(const FileTable& files, const Workload& workload);

}  // namespace shardahead::bench
