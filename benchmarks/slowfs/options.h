// options: the command line of slowfs, each default stated once. Checks values, touches neither
// files nor the mount. Used once, before any thread starts.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "control.h"
#include "link_schedule.h"

namespace slowfs {

struct Options {
  std::uint64_t bytes_per_s = 300'000'000;
  Nanoseconds round_trip = std::chrono::milliseconds(1);
  Nanoseconds metadata_round_trip{0};
  Nanoseconds seek{0};
  Nanoseconds close{0};  // 0: the kernel does not ask at all
  // So long after the last close() of a file its pages go; empty: they stay.
  std::optional<Nanoseconds> empty_after_close;
  unsigned request_kib = 1024;
  unsigned readahead_kib = 128;
  unsigned max_background = 64;
  unsigned congestion_threshold = 0;  // 0: three quarters of max_background
  bool keep_cache = true;
  bool direct_io = false;
  std::string link;  // a file in which the link is shared with other mounts; empty: it is not
  std::optional<std::uint64_t> inode;  // what every file is said to have
  std::string subtype = "slowfs";
  bool foreground = false;
  bool show_help = false;
  bool show_version = false;
  std::vector<Command> faults;
  std::string source;
  std::string mountpoint;
};

// Names the option and the value that was refused.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

Options parse_options(int argc, char** argv);

extern const char kUsage[];

}  // namespace slowfs
