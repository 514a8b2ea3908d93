// mounts: on which mount each file lies, and what the kernel tells about it. Asked by mount id
// (statx), never by the prefix of a path. Only reads /proc and /sys. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "workload.h"

namespace shardahead::bench {

struct DeviceNumber {
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
  friend bool operator==(const DeviceNumber&, const DeviceNumber&) = default;
};

std::string to_string(DeviceNumber device);  // "254:0"

struct Mount {
  std::uint64_t id = 0;
  DeviceNumber device;
  std::string root;  // what of the filesystem is mounted; "/" is all of it
  std::string mount_point;
  std::string type;  // "nfs4", "fuse.slowfs"
  std::string source;
  std::string options;  // of the mount, then those of the filesystem that it does not name itself
};

// "\040" stands for a space in the kernel's tables.
std::string decode_octal(std::string_view text);

// The lines of /proc/self/mountinfo. A line of another form is left out.
std::vector<Mount> parse_mountinfo(std::string_view text);

// One mount with what is measured on it.
struct MountUsed {
  Mount mount;
  std::optional<std::uint64_t> read_ahead_kib;
  std::size_t files = 0;
  std::uint64_t measured_bytes = 0;
};

// The mounts of the measured files, in the order of their first file. A file whose mount cannot be
// found counts to one without a type.
std::vector<MountUsed> mounts_of(const Workload& workload);

// All that a small text file holds; nothing where it cannot be read.
std::optional<std::string> file_text(const std::string& path);

}  // namespace shardahead::bench
