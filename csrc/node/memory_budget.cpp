#include "node/memory_budget.h"

#include <algorithm>
#include <utility>

#include "base/byte_range.h"
#include "base/proc_text.h"
#include "node/mount.h"

namespace shardahead {
namespace {

// What "unlimited" looks like in version 1: the largest number of whole pages.
constexpr std::uint64_t kUnlimitedBytes = std::uint64_t{1} << 62U;

template <typename Names>
bool contains(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// The group's path below the root of what is mounted.
std::string below(std::string_view path, std::string_view root) {
  if (root == "/") root = "";
  if (path == "/") path = "";
  const bool within = path.starts_with(root) &&
                      (path.size() == root.size() || path[root.size()] == '/') &&
                      path.find("/..") == std::string_view::npos;
  return within ? std::string(path.substr(root.size())) : "";
}

std::optional<std::string> group_path(std::string_view self_cgroup, int version) {
  for (const std::string_view line : split(self_cgroup, '\n')) {
    // hierarchy:controllers:path; the path may hold colons
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    if (version == 1 ? contains(split(controllers, ','), "memory") : line.starts_with("0::")) {
      return std::string(line.substr(second + 1));
    }
  }
  return std::nullopt;
}

// What one group allows and uses; nothing where it has no limit.
std::optional<MemoryLimit> limit_of_group(const std::string& root, const std::string& folder,
                                          int version) {
  const auto text_of = [&](const char* name) {
    return file_text(root + folder + "/" + name).value_or("");
  };
  const bool old = version == 1;
  auto limit = parse_limit(text_of(old ? "memory.limit_in_bytes" : "memory.max"));
  if (!old) {
    const auto high = parse_limit(text_of("memory.high"));
    if (high) limit = limit ? std::min(*limit, *high) : *high;
  }
  const auto used = leading_number(text_of(old ? "memory.usage_in_bytes" : "memory.current"));
  if (!limit || !used) return std::nullopt;
  return MemoryLimit{folder, *limit, *used, droppable_bytes(text_of("memory.stat"), version)};
}

void add_groups(const std::string& root, const MemoryCgroup& group,
                std::vector<MemoryLimit>& limits) {
  for (std::string path = group.path;; path.resize(path.rfind('/'))) {
    if (auto limit = limit_of_group(root, group.mount_point + path, group.version)) {
      limits.push_back(std::move(*limit));
    }
    if (path.empty() || path.find('/') == std::string::npos) return;
  }
}

std::optional<MemoryLimit> limit_of_machine(const std::string& root) {
  const std::string path = "/proc/meminfo";
  const auto text = file_text(root + path);
  if (!text) return std::nullopt;
  const auto total = value_of(*text, "MemTotal");
  const auto available = value_of(*text, "MemAvailable");
  if (!total || !available) return std::nullopt;
  // MemAvailable has the page cache in it already: told apart only so that the sum can be read.
  const std::uint64_t unused = value_of(*text, "MemFree").value_or(0);
  const std::uint64_t droppable = *available - std::min(unused, *available);
  return MemoryLimit{path, *total, *total - std::min(*total, *available - droppable), droppable};
}

}  // namespace

std::uint64_t MemoryLimit::free_bytes() const noexcept {
  const std::uint64_t kept = used_bytes - std::min(used_bytes, droppable_bytes);
  return limit_bytes - std::min(limit_bytes, kept);
}

std::uint64_t memory_reserve(std::uint64_t free_bytes) noexcept {
  return std::min(std::max(free_bytes / 8, 256 * kMiB), free_bytes / 2);
}

MemoryBudget memory_budget(const std::string& root) {
  MemoryBudget budget;
  const auto self_cgroup = file_text(root + "/proc/self/cgroup");
  const auto mountinfo = file_text(root + "/proc/self/mountinfo");
  if (self_cgroup && mountinfo) {
    for (const MemoryCgroup& group : memory_cgroups(*self_cgroup, *mountinfo)) {
      add_groups(root, group, budget.limits);
    }
  }
  if (auto machine = limit_of_machine(root)) budget.limits.push_back(std::move(*machine));
  for (std::size_t i = 0; i < budget.limits.size(); ++i) {
    if (budget.limits[i].free_bytes() < budget.limits[budget.tightest].free_bytes()) {
      budget.tightest = i;
    }
  }
  if (budget.limits.empty()) return budget;
  const std::uint64_t free_bytes = budget.limits[budget.tightest].free_bytes();
  budget.reserve_bytes = memory_reserve(free_bytes);
  budget.budget_bytes = free_bytes - budget.reserve_bytes;
  return budget;
}

std::vector<MemoryCgroup> memory_cgroups(std::string_view self_cgroup, std::string_view mountinfo) {
  std::vector<MemoryCgroup> found;
  for (const Mount& mount : parse_mountinfo(mountinfo)) {
    const int version = mount.type == "cgroup2" ? 2 : 1;
    if (version == 1 && (mount.type != "cgroup" || !contains(mount.options, "memory"))) continue;
    const auto path = group_path(self_cgroup, version);
    if (path) found.push_back({version, mount.mount_point, below(*path, mount.root)});
  }
  return found;
}

std::optional<std::uint64_t> parse_limit(std::string_view text) {
  const auto number = leading_number(text);
  return number && *number < kUnlimitedBytes ? number : std::nullopt;
}

std::uint64_t droppable_bytes(std::string_view memory_stat, int version) {
  // Without "total_", version 1 leaves out the groups below.
  const auto value = [&](const char* name, const char* old_name) {
    return value_of(memory_stat, version == 1 ? old_name : name).value_or(0);
  };
  const std::uint64_t file_bytes =
      value("active_file", "total_active_file") + value("inactive_file", "total_inactive_file");
  const std::uint64_t busy_bytes =
      value("file_dirty", "total_dirty") + value("file_writeback", "total_writeback");
  return file_bytes - std::min(file_bytes, busy_bytes);
}

}  // namespace shardahead
