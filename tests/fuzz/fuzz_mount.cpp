// Any text as /proc/self/mountinfo: only whole lines become mounts, and what they name is no longer
// than the line.
#include <algorithm>

#include "fuzz_input.h"
#include "node/mount.h"

using namespace shardahead;
using fuzzing::require;

int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(bytes), size);
  require(decode_octal(text).size() <= text.size(), "decoding does not lengthen");
  const auto mounts = parse_mountinfo(text);
  const auto lines = static_cast<std::size_t>(std::ranges::count(text, '\n')) + 1;
  require(mounts.size() <= lines, "a line is one mount at most");
  for (const Mount& mount : mounts) {
    std::size_t length =
        mount.root.size() + mount.mount_point.size() + mount.type.size() + mount.source.size();
    for (const std::string& option : mount.options) {
      require(!option.empty(), "an option has a name");
      length += option.size();
    }
    require(length <= text.size(), "a mount is no longer than its line");
    for (const char* key : {"rsize", "max_read", "lowerdir", ""}) {
      const auto value = option_value(mount, key);
      require(!value || value->size() < text.size(), "a value is part of an option");
    }
    request_bytes_of(mount);
    const auto layers = overlay_layers(mount.options);
    for (const MountLayer& layer : layers) require(!layer.path.empty(), "a layer has a path");
    mount_class_of(layers);
    mount_class_of(mount.type);
  }
  return 0;
}
