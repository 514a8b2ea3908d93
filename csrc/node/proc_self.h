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
#include <vector>

#include "base/byte_range.h"

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
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }

 private:
  int descriptor_;
};

// The mappings of files one by one, by PROCMAP_QUERY: a fifth of what reading the text of maps
// takes. Linux 6.11.
class MapsQuery {
 public:
  explicit MapsQuery(const std::string& path) : file_(path) {}

  // The mapping of a file that covers the address, or the first behind it. Nothing where there is
  // none, or the kernel does not tell: then `works` is set to false.
  std::optional<MapsLine> next(std::uint64_t address, bool& works) const;
  // The name of the file that is mapped there, as maps has it.
  [[nodiscard]] std::string name(std::uint64_t address) const;

 private:
  ProcFile file_;
};

// Which pages of this process are mapped to something, or were and are swapped out.
class PageMap {
 public:
  explicit PageMap(const std::string& path) : file_(path) {}

  // Whether the kernel shows such a file: it tells of a page of ours that is there that it is.
  static bool tells(const std::string& path);

  // The touched parts of [begin, end), sorted and merged. Addresses, of whole pages.
  std::vector<ByteRange> touched(std::uint64_t begin, std::uint64_t end);

  // The end of the last touched page of [begin, end), until `scan_bytes` in a row are untouched; 0
  // where none is. Addresses, of whole pages.
  std::uint64_t touched_end(std::uint64_t begin, std::uint64_t end, std::uint64_t scan_bytes);
  // Some touched page of [begin, end) that is far behind, or 0. `turn` shifts the probes.
  std::uint64_t probe(std::uint64_t begin, std::uint64_t end, std::uint64_t turn);

 private:
  std::size_t read(std::uint64_t address, std::uint64_t pages);
  // By PAGEMAP_SCAN, which passes over what has no page table. False where the kernel has none.
  bool scan(std::uint64_t begin, std::uint64_t end, std::vector<ByteRange>& found);

  bool scans_ = true;
  ProcFile file_;
  std::array<std::uint64_t, 4096> entries_{};
};

}  // namespace shardahead
