// memory_budget: how much page cache may be filled without hurting: what the machine and every
// cgroup above this process have left, counting page cache that can be dropped as free. Reads small
// files of /proc and /sys; decides by pure functions, which the tests call by themselves. Any
// thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace shardahead {

// The memory of one cgroup, or of the machine, and what of it could be filled.
struct MemoryLimit {
  std::string source;  // the folder of a cgroup, or the path of meminfo
  std::uint64_t limit_bytes = 0;
  std::uint64_t used_bytes = 0;
  std::uint64_t droppable_bytes = 0;  // of these: page cache that is clean and not pinned
  [[nodiscard]] std::uint64_t free_bytes() const noexcept;
};

struct MemoryBudget {
  // What the tightest of the limits leaves, less the reserve. Nothing where no limit was readable.
  std::optional<std::uint64_t> budget_bytes;
  std::uint64_t reserve_bytes = 0;  // for what the load itself allocates
  std::size_t tightest = 0;         // into limits
  std::vector<MemoryLimit> limits;
};

// Of the running machine. `root` stands before every path that is read: a folder of fixtures.
MemoryBudget memory_budget(const std::string& root = "");

// An eighth of what is free, at least 256 MiB, but never more than half of it.
std::uint64_t memory_reserve(std::uint64_t free_bytes) noexcept;

// One hierarchy of cgroups that limits memory, as this process sees it.
struct MemoryCgroup {
  int version = 2;          // 1 or 2
  std::string mount_point;  // where it is mounted
  std::string path;         // of this process's group below that: "" or "/a/b"
  friend bool operator==(const MemoryCgroup&, const MemoryCgroup&) = default;
};

// From the contents of /proc/self/cgroup and /proc/self/mountinfo. Within a container the group may
// lie above what is mounted; then it is the mount itself.
std::vector<MemoryCgroup> memory_cgroups(std::string_view self_cgroup, std::string_view mountinfo);

// A limit as cgroups write it: "max" and the largest numbers mean that there is none.
std::optional<std::uint64_t> parse_limit(std::string_view text);

// What memory.stat says can be dropped at once: file pages that are on a list for eviction and
// neither dirty nor under writeback. Memory of tmpfs is on the others' lists.
std::uint64_t droppable_bytes(std::string_view memory_stat, int version);

}  // namespace shardahead
