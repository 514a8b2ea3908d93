// mounts: on which mounts the measured files lie, and how much of each. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "node/mount.h"
#include "workload.h"

namespace shardahead::bench {

// One mount with what is measured on it.
struct MountUsed {
  Mount mount;
  std::size_t files = 0;
  std::uint64_t measured_bytes = 0;
  [[nodiscard]] std::optional<std::uint64_t> read_ahead_kib() const;
};

// The mounts of the measured files, in the order of their first file. A file whose mount cannot be
// found counts to one without a type.
std::vector<MountUsed> mounts_of(const Workload& workload);

}  // namespace shardahead::bench
