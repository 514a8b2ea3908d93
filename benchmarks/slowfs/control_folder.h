// control_folder: what the hidden folder .slowfs at the mount root holds: its names, attributes,
// the text of the counters, and the effect of commands. Knows nothing of FUSE. Not thread-safe
// but for the counters: used by the request thread alone.
#pragma once

#include <sys/stat.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "control.h"
#include "counters.h"
#include "faults.h"
#include "link_schedule.h"
#include "options.h"
#include "source_tree.h"

namespace slowfs {

// All that a running filer changes about itself.
struct Filer {
  LinkSchedule link;
  FaultTable faults;
  Counters counters;
  Nanoseconds close_delay{0};
};

class ControlFolder {
 public:
  static constexpr std::string_view kName = ".slowfs";
  static constexpr std::uint64_t kFolder = 2;
  static constexpr std::uint64_t kCounters = 3;
  static constexpr std::uint64_t kControl = 4;
  static constexpr std::uint64_t kFirstFree = 16;

  ControlFolder(const Options& options, const SourceTree& tree, Filer& filer)
      : options_(options), tree_(tree), filer_(filer) {}

  [[nodiscard]] static bool holds(std::uint64_t inode) noexcept {
    return inode >= kFolder && inode < kFirstFree;
  }
  [[nodiscard]] static std::optional<std::uint64_t> child(std::string_view name) noexcept;
  [[nodiscard]] static struct stat attributes(std::uint64_t inode) noexcept;
  [[nodiscard]] static std::vector<DirectoryEntry> list();

  // One JSON object: the counters, then the configuration as it is now.
  [[nodiscard]] std::string counters_text() const;

  // All commands or none. Throws EINVAL for a bad line, ENOENT for a path that is not there.
  void execute(std::string_view text);
  void execute(const std::vector<Command>& commands);

 private:
  const Options& options_;
  const SourceTree& tree_;
  Filer& filer_;
};

}  // namespace slowfs
