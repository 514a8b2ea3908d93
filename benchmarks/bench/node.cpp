#include "node.h"

#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>

#include "base/proc_text.h"
#include "units.h"

namespace shardahead::bench {
namespace {

std::string_view stripped(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::string cpu_model() {
  const std::string text = file_text("/proc/cpuinfo").value_or("");
  for (const char* key : {"model name", "Model", "cpu model", "CPU part"}) {
    if (std::string value = value_of(text, key); !value.empty()) return value;
  }
  return "unknown";
}

std::uint32_t usable_cpus(std::uint32_t otherwise) {
  cpu_set_t allowed;
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return otherwise;
  return static_cast<std::uint32_t>(CPU_COUNT(&allowed));
}

}  // namespace

std::string value_of(std::string_view text, std::string_view key) {
  for (const std::string_view line : split(text, '\n')) {
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    if (stripped(line.substr(0, colon)) == key) {
      return std::string(stripped(line.substr(colon + 1)));
    }
  }
  return "";
}

Node this_node() {
  Node node;
  utsname names{};
  if (::uname(&names) == 0) {
    node.kernel = std::string(names.sysname) + " " + names.release;
  }
  node.cpu_model = cpu_model();
  node.cpus = static_cast<std::uint32_t>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
  node.usable_cpus = usable_cpus(node.cpus);
  const std::string total = value_of(file_text("/proc/meminfo").value_or(""), "MemTotal");
  // What /proc/meminfo calls kB are 1024 bytes.
  node.memory_bytes = parse_count(total.substr(0, total.find(' '))).value_or(0) * 1024;
  return node;
}

const char* version() noexcept { return SHARDAHEAD_VERSION; }

}  // namespace shardahead::bench
