// proc_self: what /proc/self tells of this process's mappings, of the pages of them that it has
// touched, and of its descriptors. Whose they are is for those who ask. No state but open files;
// one thread uses each object.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace shardahead {

// One line of /proc/self/maps, without the name.
struct MapsLine {
  std::uint64_t begin = 0;  // addresses
  std::uint64_t end = 0;
  std::uint64_t offset = 0;  // in the file
  std::uint64_t device = 0;  // as the mapping has it: not that of fstat on btrfs and overlayfs
  std::uint64_t inode = 0;   // 0 without a file
  bool readable = false;
  bool writable = false;
  bool executable = false;
  bool shared = false;
  friend bool operator==(const MapsLine&, const MapsLine&) = default;
};

std::optional<MapsLine> parse_maps_line(std::string_view line);

// The offset of a descriptor, from its /proc/self/fdinfo.
std::optional<std::uint64_t> parse_fdinfo_position(std::string_view fdinfo);

// The name of the file in a line of maps, as the kernel writes it; empty where there is none.
std::string_view maps_name(std::string_view line) noexcept;

// Calls `each` with every line of maps that can be read and belongs to a file, and with its text.
template <typename Each>
void for_each_mapping(std::string_view maps, Each&& each) {
  while (!maps.empty()) {
    const std::size_t end = std::min(maps.find('\n'), maps.size());
    const std::string_view text = maps.substr(0, end);
    const auto line = parse_maps_line(text);
    // Some mounts give the inode number 0 to files. What has no file has no device either.
    if (line && (line->inode != 0 || line->device != 0)) each(*line, text);
    maps.remove_prefix(std::min(end + 1, maps.size()));
  }
}

// A file of /proc, or none; every call may fail.
class ProcFile {
 public:
  explicit ProcFile(const std::string& path);
  ~ProcFile();
  ProcFile(const ProcFile&) = delete;
  ProcFile& operator=(const ProcFile&) = delete;

  // Into a text that may be used again and again: maps is long.
  void read_all(std::string& text) const;
  std::size_t read_at(std::uint64_t offset, void* buffer, std::size_t length) const;

 private:
  int descriptor_;
};

// Which pages of this process are mapped to something, or were and are swapped out.
class PageMap {
 public:
  explicit PageMap(const std::string& path) : file_(path) {}

  // The end of the last touched page of [begin, end), until `scan_bytes` in a row are untouched; 0
  // where none is. Addresses, of whole pages.
  std::uint64_t touched_end(std::uint64_t begin, std::uint64_t end, std::uint64_t scan_bytes);
  // Some touched page of [begin, end) that is far behind, or 0. `turn` shifts the probes.
  std::uint64_t probe(std::uint64_t begin, std::uint64_t end, std::uint64_t turn);

 private:
  std::size_t read(std::uint64_t address, std::uint64_t pages);

  ProcFile file_;
  std::array<std::uint64_t, 4096> entries_{};
};

}  // namespace shardahead
