// Any texts as /proc/self/cgroup, /proc/self/mountinfo and the files of a memory cgroup: no group
// outside its mount, no free memory beyond the limit.
#include "base/proc_text.h"
#include "fuzz_input.h"
#include "node/memory_budget.h"

using namespace shardahead;
using fuzzing::require;

int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  fuzzing::FuzzInput input(bytes, size);
  const std::string_view self_cgroup = input.text();
  const std::string_view mountinfo = input.text();
  for (const MemoryCgroup& group : memory_cgroups(self_cgroup, mountinfo)) {
    require(group.version == 1 || group.version == 2, "there are two versions");
    require(group.path.empty() || group.path.front() == '/', "a group is a path below its mount");
    require((group.path + "/").find("/../") == std::string::npos, "a group is not above its mount");
  }
  const std::string_view stat = input.text();
  const std::string_view limit_text = input.text();
  const auto used = value_of(stat, "MemTotal");
  const auto limit = parse_limit(limit_text);
  for (const int version : {1, 2}) {
    const std::uint64_t droppable = droppable_bytes(stat, version);
    const MemoryLimit found{"", limit.value_or(0), used.value_or(0), droppable};
    require(found.free_bytes() <= found.limit_bytes, "not more is free than there is");
    require(memory_reserve(found.free_bytes()) <= found.free_bytes(), "the reserve fits");
  }
  return 0;
}
