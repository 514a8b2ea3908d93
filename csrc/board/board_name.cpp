#include "board/board_name.h"

#include <unistd.h>

#include <array>
#include <cstdio>
#include <exception>
#include <fstream>
#include <map>
#include <string_view>
#include <utility>

#include "board/board_memory.h"
#include "node/mount.h"

namespace shardahead {
namespace {

// FNV-1a, twice with different starts: names a load, protects from nothing.
class Fingerprint {
 public:
  void add(std::uint64_t value) {
    for (int shift = 0; shift < 64; shift += 8) {
      const auto byte = static_cast<std::uint8_t>(value >> static_cast<unsigned>(shift));
      for (std::uint64_t& half : halves_) half = (half ^ byte) * 0x100000001b3;
    }
    halves_[1] ^= halves_[0] >> 29U;
  }
  void add(const std::string& text) {
    for (const char character : text) add(static_cast<std::uint64_t>(character));
  }
  [[nodiscard]] std::string hex() const {
    std::array<char, 33> text{};
    std::snprintf(text.data(), text.size(), "%016llx%016llx",
                  static_cast<unsigned long long>(halves_[0]),
                  static_cast<unsigned long long>(halves_[1]));
    return text.data();
  }

 private:
  std::array<std::uint64_t, 2> halves_{0xcbf29ce484222325, 0x84222325cbf29ce4};
};

// Paths of this process as paths within their filesystems. One look at the table of mounts for each
// device: on the same one, a file of another mount keeps the path that it has here.
class PathsInFilesystem {
 public:
  std::string of(const std::string& path, std::uint64_t device) {
    const auto [found, is_new] = mounts_.try_emplace(device);
    if (is_new) found->second = mount_of_file(path);
    const auto& [mount_point, root] = found->second;
    const std::string folder = mount_point == "/" ? "" : mount_point;
    const bool below = !mount_point.empty() && path.starts_with(folder + "/");
    if (!below) return path;
    return (root == "/" ? "" : root) + path.substr(folder.size());
  }

 private:
  static std::pair<std::string, std::string> mount_of_file(const std::string& path) {
    try {
      Mount mount = mount_of(path);
      return {std::move(mount.mount_point), std::move(mount.root)};
    } catch (const std::exception&) {
      return {};
    }
  }

  std::map<std::uint64_t, std::pair<std::string, std::string>> mounts_;  // mount point and root
};

}  // namespace

std::string board_prefix() { return "shardahead-" + std::to_string(::geteuid()) + "-"; }

std::string board_name(const FileTable& files, const Plan& plan) {
  Fingerprint fingerprint;
  fingerprint.add(kBoardVersion);
  std::ifstream boot("/proc/sys/kernel/random/boot_id");
  std::string boot_id;
  std::getline(boot, boot_id);
  fingerprint.add(boot_id);
  PathsInFilesystem paths;
  for (std::size_t i = 0; i < files.size(); ++i) {
    const FileStatus& status = files.status(i);
    const std::string& real_path = files.real_path(i);
    if (!real_path.empty()) fingerprint.add(paths.of(real_path, status.device));
    fingerprint.add(status.device);
    fingerprint.add(status.inode);
    fingerprint.add(status.size_bytes);
    fingerprint.add(static_cast<std::uint64_t>(status.modified_nanoseconds));
  }
  // How the files are cut: the first block of the full size tells the block size.
  fingerprint.add(plan.blocks().size());
  for (const Block& block : plan.blocks()) fingerprint.add(block.range.length);
  return board_prefix() + fingerprint.hex();
}

}  // namespace shardahead
