// mount: on which mount a path lies and what the kernel tells about it: type, options, readahead,
// request size, and of which class that makes it. Asked by mount id, never by the prefix of a path.
// Does not measure, and opens no file for reading. Parsers and classification are pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace shardahead {

struct DeviceNumber {
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
  friend bool operator==(const DeviceNumber&, const DeviceNumber&) = default;
};

std::string to_string(DeviceNumber device);  // "254:0"

// Where the bytes come from. network: from outside this kernel, so virtiofs and 9p, too;
// user_space: FUSE, whatever its server does; unknown: a type that is not known by name, or an
// overlay whose layers cannot be seen from here.
enum class MountClass { network, user_space, local, memory, unknown };

const char* to_string(MountClass mount_class) noexcept;

struct MountLayer;

struct Mount {
  std::uint64_t id = 0;
  DeviceNumber device;
  std::string root;  // what of the filesystem is mounted; "/" is all of it
  std::string mount_point;
  std::string type;  // "nfs4", "fuse.slowfs"; empty where the table does not have the mount
  std::string source;
  // Of the mount, then those of the filesystem that it does not name itself: "ro", "rsize=65536".
  std::vector<std::string> options;

  MountClass mount_class = MountClass::unknown;
  std::string read_ahead_path;  // the file of /sys that holds it, in KiB; empty where none does
  std::optional<std::uint64_t> read_ahead_bytes;
  std::optional<std::uint64_t> request_bytes;  // the largest read that one request asks for
  std::vector<MountLayer> layers;              // of an overlay, from the top down
};

// One folder that an overlay shows.
struct MountLayer {
  std::string path;
  bool upper = false;
  // Without a type where the path is not of this mount namespace, as within containers.
  Mount mount;
};

// "\040" stands for a space in the kernel's tables.
std::string decode_octal(std::string_view text);

// The lines of /proc/self/mountinfo, of which only what stands there is filled in. A line of
// another form is left out.
std::vector<Mount> parse_mountinfo(std::string_view text);

// What follows "key=": the last of several. Nothing where the option is not there or has no value.
std::optional<std::string_view> option_value(const Mount& mount, std::string_view key);

// By the name of the filesystem's type alone.
MountClass mount_class_of(std::string_view type) noexcept;

// Of an overlay, by its layers: the slowest kind counts, because any file may lie there.
MountClass mount_class_of(const std::vector<MountLayer>& layers) noexcept;

std::optional<std::uint64_t> request_bytes_of(const Mount& mount);

// The folders that the options of an overlay name, without their mounts.
std::vector<MountLayer> overlay_layers(const std::vector<std::string>& options);

// The id of the mount on which the path lies once its symlinks are followed, as in mountinfo.
// Throws IoException where there is no such path.
std::uint64_t mount_id_of(const std::string& path);

// The mount of that id, complete. `root` stands before every file of /proc and /sys that is read: a
// folder of fixtures.
Mount mount_with_id(std::uint64_t id, const std::string& root = "");

// Both. Throws as mount_id_of does, and for nothing else that cannot be read.
Mount mount_of(const std::string& path, const std::string& root = "");

}  // namespace shardahead
