#include "mounts.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "units.h"

namespace shardahead::bench {
namespace {

constexpr std::uint64_t kNoMount = 0;

std::optional<DeviceNumber> parse_device(std::string_view text) {
  const auto parts = split(text, ':');
  if (parts.size() != 2) return std::nullopt;
  const auto major = parse_count(parts[0]);
  const auto minor = parse_count(parts[1]);
  if (!major || !minor) return std::nullopt;
  return DeviceNumber{static_cast<std::uint32_t>(*major), static_cast<std::uint32_t>(*minor)};
}

std::string merged_options(std::string_view of_mount, std::string_view of_filesystem) {
  std::vector<std::string> all = split(of_mount, ',');
  for (std::string& option : split(of_filesystem, ',')) {
    if (std::find(all.begin(), all.end(), option) == all.end()) all.push_back(std::move(option));
  }
  return joined(all, ",");
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
  return Mount{*id,
               *device,
               decode_octal(words[3]),
               decode_octal(words[4]),
               decode_octal(dash[1]),
               decode_octal(dash[2]),
               merged_options(decode_octal(words[5]), decode_octal(dash[3]))};
}

std::uint64_t mount_id(const std::string& path) {
  struct statx found{};
  if (statx(AT_FDCWD, path.c_str(), 0, STATX_MNT_ID, &found) != 0) return kNoMount;
  return (found.stx_mask & STATX_MNT_ID) != 0 ? found.stx_mnt_id : kNoMount;
}

std::optional<std::uint64_t> read_ahead_kib(DeviceNumber device) {
  const std::string number = to_string(device);
  // The last one: a partition has none of its own, but its disk has.
  for (const std::string& path : {"/sys/class/bdi/" + number + "/read_ahead_kb",
                                  "/sys/class/bdi/" + number + "-fuseblk/read_ahead_kb",
                                  "/sys/dev/block/" + number + "/../queue/read_ahead_kb"}) {
    const auto text = file_text(path);
    if (text) return parse_count(text->substr(0, text->find('\n')));
  }
  return std::nullopt;
}

}  // namespace

std::string to_string(DeviceNumber device) {
  return std::to_string(device.major) + ":" + std::to_string(device.minor);
}

std::optional<std::string> file_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad()) return std::nullopt;
  return text;
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
  for (const std::string& line : split(text, '\n')) {
    if (auto mount = parse_line(line)) mounts.push_back(std::move(*mount));
  }
  return mounts;
}

std::vector<MountUsed> mounts_of(const Workload& workload) {
  const auto known = parse_mountinfo(file_text("/proc/self/mountinfo").value_or(""));
  std::vector<MountUsed> used;
  for (const MeasuredFile& file : workload.files) {
    const std::uint64_t id = mount_id(file.path);
    auto found = std::find_if(used.begin(), used.end(),
                              [&](const MountUsed& entry) { return entry.mount.id == id; });
    if (found == used.end()) {
      MountUsed entry;
      entry.mount.id = id;
      const auto mount = std::find_if(known.begin(), known.end(),
                                      [&](const Mount& candidate) { return candidate.id == id; });
      if (mount != known.end()) {
        entry.mount = *mount;
        entry.read_ahead_kib = read_ahead_kib(mount->device);
      }
      found = used.insert(used.end(), std::move(entry));
    }
    ++found->files;
    found->measured_bytes += file.measured_bytes;
  }
  return used;
}

}  // namespace shardahead::bench
