// Any text as /proc/self/maps and fdinfo: what is taken from a line stands in it.
#include <sys/sysmacros.h>

#include <cstdio>
#include <string>

#include "base/proc_text.h"
#include "fuzz_input.h"
#include "node/loader_progress.h"

using namespace shardahead;
using fuzzing::require;

int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(bytes), size);
  for (const std::string_view line : split(text, '\n')) {
    const auto found = parse_maps_line(line);
    if (!found) continue;
    require(found->begin <= found->end, "a mapping does not end before it begins");
    is_own_mapping(*found);
    // Written as the kernel writes it, it is the same again.
    char again[128];
    std::snprintf(again, sizeof again, "%llx-%llx %c%c%c%c %llx %x:%x %llu",
                  static_cast<unsigned long long>(found->begin),
                  static_cast<unsigned long long>(found->end), found->readable ? 'r' : '-',
                  found->writable ? 'w' : '-', found->executable ? 'x' : '-',
                  found->shared ? 's' : 'p', static_cast<unsigned long long>(found->offset),
                  gnu_dev_major(found->device), gnu_dev_minor(found->device),
                  static_cast<unsigned long long>(found->inode));
    require(parse_maps_line(again) == found, "a line written anew says the same");
  }
  parse_fdinfo_position(text);
  return 0;
}
