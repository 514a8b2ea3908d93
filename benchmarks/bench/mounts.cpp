#include "mounts.h"

#include <algorithm>

#include "base/byte_range.h"
#include "base/error.h"

namespace shardahead::bench {
namespace {

constexpr std::uint64_t kNoMount = 0;

std::uint64_t mount_id(const std::string& path) {
  try {
    return mount_id_of(path);
  } catch (const IoException&) {
    return kNoMount;
  }
}

}  // namespace

std::optional<std::uint64_t> MountUsed::read_ahead_kib() const {
  if (!mount.read_ahead_bytes) return std::nullopt;
  return *mount.read_ahead_bytes / kKiB;
}

std::vector<MountUsed> mounts_of(const Workload& workload) {
  std::vector<MountUsed> used;
  for (const MeasuredFile& file : workload.files) {
    const std::uint64_t id = mount_id(file.path);
    auto found = std::find_if(used.begin(), used.end(),
                              [&](const MountUsed& entry) { return entry.mount.id == id; });
    if (found == used.end()) found = used.insert(used.end(), MountUsed{mount_with_id(id)});
    ++found->files;
    found->measured_bytes += file.measured_bytes;
  }
  return used;
}

}  // namespace shardahead::bench
