#include "node/mount.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/byte_range.h"
#include "base/error.h"
#include "base/folder_names.h"
#include "base/proc_text.h"
#include "node/mount_number.h"

namespace shardahead {
namespace {

// An overlay may lie on an overlay; the kernel allows two levels.
constexpr int kMaxOverlayDepth = 3;

constexpr std::array<std::string_view, 22> kNetworkTypes{
    "nfs",   "nfs4",   "lustre",   "ceph", "cifs",   "smb3",        "smbfs", "gpfs",
    "mmfs",  "beegfs", "weka",     "9p",   "wekafs", "virtiofs",    "panfs", "glusterfs",
    "pvfs2", "daos",   "orangefs", "afs",  "coda",   "beegfs_nodev"};
constexpr std::array<std::string_view, 26> kLocalTypes{
    "ext2",     "ext3",   "ext4", "xfs",   "btrfs", "f2fs",  "zfs",   "bcachefs", "jfs",
    "reiserfs", "nilfs2", "vfat", "msdos", "exfat", "ntfs",  "ntfs3", "hfs",      "hfsplus",
    "squashfs", "erofs",  "udf",  "ufs",   "minix", "ocfs2", "gfs2",  "iso9660"};
constexpr std::array<std::string_view, 5> kMemoryTypes{"tmpfs", "ramfs", "rootfs", "devtmpfs",
                                                       "hugetlbfs"};
// What their options call the largest read.
constexpr std::array<std::string_view, 5> kTypesWithRsize{"nfs", "nfs4", "cifs", "smb3", "ceph"};

template <typename Names>
bool contains(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool is_fuse(std::string_view type) {
  return type == "fuse" || type == "fuseblk" || type.starts_with("fuse.");
}

std::optional<DeviceNumber> parse_device(std::string_view text) {
  const auto parts = split(text, ':');
  if (parts.size() != 2) return std::nullopt;
  const auto major = parse_count(parts[0]);
  const auto minor = parse_count(parts[1]);
  if (!major || !minor) return std::nullopt;
  return DeviceNumber{static_cast<std::uint32_t>(*major), static_cast<std::uint32_t>(*minor)};
}

// Split before decoding: a comma within a value is escaped, too.
void add_options(std::string_view list, std::vector<std::string>& options) {
  for (const std::string_view option : split(list, ',')) {
    std::string decoded = decode_octal(option);
    if (!decoded.empty() && !contains(options, decoded)) options.push_back(std::move(decoded));
  }
}

// ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAG...] - TYPE SOURCE OPTIONS; proc(5). A source may be
// empty, so two blanks in a row count.
std::optional<Mount> parse_line(std::string_view line) {
  const auto words = split(line, ' ');
  if (words.size() < 10) return std::nullopt;
  const auto dash = std::find(words.begin() + 6, words.end(), "-");
  if (words.end() - dash < 4) return std::nullopt;
  const auto id = parse_count(words[0]);
  const auto device = parse_device(words[2]);
  if (!id || !device) return std::nullopt;
  Mount mount;
  mount.id = *id;
  mount.device = *device;
  mount.root = decode_octal(words[3]);
  mount.mount_point = decode_octal(words[4]);
  mount.type = decode_octal(dash[1]);
  mount.source = decode_octal(dash[2]);
  add_options(words[5], mount.options);
  add_options(dash[3], mount.options);
  return mount;
}

// "/a:/b\:c::/d": a colon that is part of a name stands behind a backslash, and two of them begin
// the layers that hold data only.
void add_lower_layers(std::string_view list, std::vector<MountLayer>& layers) {
  std::string path;
  const auto end_path = [&] {
    if (!path.empty()) layers.push_back({std::exchange(path, {}), false, {}});
  };
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (list[i] == ':') {
      end_path();
    } else {
      if (list[i] == '\\' && i + 1 < list.size()) ++i;
      path += list[i];
    }
  }
  end_path();
}

[[noreturn]] void throw_errno(const char* operation, const std::string& path) {
  throw IoException(IoError{errno, operation, path, 0, {}});
}

// Kernels before 5.8 tell the id of an open file only. O_PATH: nothing is opened for reading.
std::uint64_t mount_id_by_descriptor(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_PATH | O_CLOEXEC);
  if (descriptor < 0) throw_errno("open", path);
  const auto text = file_text("/proc/self/fdinfo/" + std::to_string(descriptor));
  ::close(descriptor);
  constexpr std::string_view kKey = "mnt_id:\t";
  for (const std::string_view line : split(text ? *text : std::string_view(), '\n')) {
    if (line.starts_with(kKey)) return parse_count(line.substr(kKey.size())).value_or(0);
  }
  return 0;
}

// Where the kernel gives the readahead a name of its own, "btrfs-1": known only where that is the
// one of its kind.
std::string only_name_of_type(const std::string& folder, const std::string& type) {
  constexpr std::size_t kMostNames = 100'000;
  std::string found;
  for (std::string& name : folder_names(folder, kMostNames)) {
    if (!name.starts_with(type + "-") || !parse_count(name.substr(type.size() + 1))) continue;
    if (!found.empty()) return {};
    found = std::move(name);
  }
  return found;
}

void find_read_ahead(const std::string& root, Mount& mount) {
  const std::string number = to_string(mount.device);
  const std::string folder = "/sys/class/bdi/";
  const std::string own_name = only_name_of_type(root + folder, mount.type);
  // The last one: a partition has none of its own, but its disk has.
  for (const std::string& path :
       {folder + number + "/read_ahead_kb", folder + number + "-fuseblk/read_ahead_kb",
        folder + own_name + "/read_ahead_kb",
        "/sys/dev/block/" + number + "/../queue/read_ahead_kb"}) {
    const auto text = file_text(root + path);
    const auto kib = text ? leading_number(*text) : std::nullopt;
    if (!kib) continue;
    mount.read_ahead_path = path;
    mount.read_ahead_bytes = *kib * kKiB;
    return;
  }
}

void complete(const std::vector<Mount>& table, const std::string& root, int depth, Mount& mount);

Mount find_mount(const std::vector<Mount>& table, std::uint64_t id, const std::string& root,
                 int depth) {
  const auto found = std::find_if(table.begin(), table.end(),
                                  [&](const Mount& candidate) { return candidate.id == id; });
  Mount mount;
  mount.id = id;
  if (found != table.end()) {
    mount = *found;
    complete(table, root, depth, mount);
  }
  return mount;
}

void complete(const std::vector<Mount>& table, const std::string& root, int depth, Mount& mount) {
  find_read_ahead(root, mount);
  mount.request_bytes = request_bytes_of(mount);
  mount.mount_class = mount_class_of(mount.type);
  if (mount.type != "overlay") return;
  mount.layers = overlay_layers(mount.options);
  for (MountLayer& layer : mount.layers) {
    // A relative one is relative to where mount(8) stood.
    if (depth == kMaxOverlayDepth || !layer.path.starts_with('/')) continue;
    try {
      layer.mount = find_mount(table, mount_id_of(layer.path), root, depth + 1);
    } catch (const IoException&) {
      continue;  // of another mount namespace
    }
  }
  mount.mount_class = mount_class_of(mount.layers);
}

}  // namespace

std::string to_string(DeviceNumber device) {
  return std::to_string(device.major) + ":" + std::to_string(device.minor);
}

const char* to_string(MountClass mount_class) noexcept {
  switch (mount_class) {
    case MountClass::network: return "network";
    case MountClass::user_space: return "user_space";
    case MountClass::local: return "local";
    case MountClass::memory: return "memory";
    case MountClass::unknown: break;
  }
  return "unknown";
}

std::string decode_octal(std::string_view text) {
  const auto octal = [&](std::size_t at) { return text[at] >= '0' && text[at] <= '7'; };
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool escape = text[i] == '\\' && i + 3 < text.size() && text[i + 1] <= '3' &&
                        octal(i + 1) && octal(i + 2) && octal(i + 3);
    if (!escape) {
      decoded += text[i];
      continue;
    }
    decoded +=
        static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
    i += 3;
  }
  return decoded;
}

std::vector<Mount> parse_mountinfo(std::string_view text) {
  std::vector<Mount> mounts;
  for (const std::string_view line : split(text, '\n')) {
    if (auto mount = parse_line(line)) mounts.push_back(std::move(*mount));
  }
  return mounts;
}

std::optional<std::string_view> option_value(const Mount& mount, std::string_view key) {
  std::optional<std::string_view> found;
  for (const std::string_view option : mount.options) {
    const bool named = option.starts_with(key) && option.substr(key.size()).starts_with('=');
    if (named) found = option.substr(key.size() + 1);
  }
  return found;
}

MountClass mount_class_of(std::string_view type) noexcept {
  if (is_fuse(type)) return MountClass::user_space;
  if (contains(kNetworkTypes, type)) return MountClass::network;
  if (contains(kLocalTypes, type)) return MountClass::local;
  return contains(kMemoryTypes, type) ? MountClass::memory : MountClass::unknown;
}

MountClass mount_class_of(const std::vector<MountLayer>& layers) noexcept {
  for (const MountClass slowest : {MountClass::network, MountClass::user_space, MountClass::unknown,
                                   MountClass::local, MountClass::memory}) {
    for (const MountLayer& layer : layers) {
      if (layer.mount.mount_class == slowest) return slowest;
    }
  }
  return MountClass::unknown;
}

std::optional<std::uint64_t> request_bytes_of(const Mount& mount) {
  std::string_view key;
  if (contains(kTypesWithRsize, mount.type)) key = "rsize";
  if (is_fuse(mount.type)) key = "max_read";
  const auto value = key.empty() ? std::nullopt : option_value(mount, key);
  return value ? parse_count(*value) : std::nullopt;
}

std::vector<MountLayer> overlay_layers(const std::vector<std::string>& options) {
  std::vector<MountLayer> layers;
  for (const std::string_view option : options) {
    const std::size_t equals = option.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string_view key = option.substr(0, equals);
    const std::string_view value = option.substr(equals + 1);
    if (value.empty()) continue;
    if (key == "upperdir") {
      layers.insert(layers.begin(), MountLayer{std::string(value), true, {}});
    } else if (key == "lowerdir") {
      add_lower_layers(value, layers);
    } else if (key == "lowerdir+" || key == "datadir+") {  // one each, since Linux 6.8
      layers.push_back({std::string(value), false, {}});
    }
  }
  return layers;
}

std::uint64_t mount_id_of(const std::string& path) {
  MountNumber found;
  const int result = mount_number(path.c_str(), WantedNumber::listed, found);
  if (result == 0) return found.number;
  // How old kernels and old seccomp profiles refuse.
  if (result != -ENODATA && result != -ENOSYS && result != -EPERM) {
    throw IoException(IoError{-result, "statx", path, 0, {}});
  }
  return mount_id_by_descriptor(path);
}

Mount mount_with_id(std::uint64_t id, const std::string& root) {
  const auto text = file_text(root + "/proc/self/mountinfo");
  return find_mount(parse_mountinfo(text ? *text : std::string_view()), id, root, 0);
}

Mount mount_of(const std::string& path, const std::string& root) {
  return mount_with_id(mount_id_of(path), root);
}

}  // namespace shardahead
