// loader_progress: how far the code of this process that loads some files by its own means (a loop
// over safetensors, torch.load, np.fromfile) has got in each of them, as /proc/self tells: pages it
// has touched of what it has mapped, offsets of its descriptors. It does not see what leaves no
// trace there: pread, O_DIRECT into other memory, other processes. One thread calls it at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "node/proc_self.h"
#include "node/touched_bytes.h"

namespace shardahead {

struct LoaderPosition {
  std::uint64_t end_bytes = 0;  // of what has been touched or read so far; never goes back
  bool mapped = false;          // at present, by other code than ours
  friend bool operator==(const LoaderPosition&, const LoaderPosition&) = default;
};

// Whether the core maps like that for itself: FileIo::fault_in_huge_pages and mincore, and
// LoaderProgress.
bool is_own_mapping(const MapsLine& line) noexcept;

class LoaderProgress {
 public:
  // Opens every file once, and closes it. A path that cannot be opened stays at 0, as does all of
  // it where /proc cannot be read. `root` stands before every path below /proc: for fixtures.
  explicit LoaderProgress(const std::vector<std::string>& paths, std::string root = "");

  // Looks once, and gives a position for each path. In each mapping it looks from the last position
  // on, until `scan_bytes` in a row are untouched, then at a few pages of the rest.
  //
  // A fault maps what is resident around it, so a mapped position may be up to 64 KiB too far, or
  // one huge page where the page cache has huge pages. A reader of mappings that has jumped by more
  // than `scan_bytes` is seen once a probe meets a page that it touched: at once where that is a
  // 32nd of the rest in one piece, later or never where it is less. A descriptor that has jumped by
  // more counts from the next look on (see look_at_descriptors), and within one read() it stands
  // still.
  const std::vector<LoaderPosition>& look(std::uint64_t scan_bytes);

  // Looks at all that is mapped, and marks what is touched: the pages, and what lies between two
  // offsets of a descriptor that has moved on by no more than kMostReadBytes, whether it was read
  // or passed over. What is unmapped between two looks is seen as the first of them found it.
  // Without `anew` only mappings that are known from before are looked at, where the kernel tells
  // of them one by one (Linux 6.11): that takes a twentieth of the time, or none.
  void mark_touched(TouchedBytes& touched, bool anew = true);
  static constexpr std::uint64_t kMostReadBytes = 256 * kMiB;

 private:
  using Key = std::pair<std::uint64_t, std::uint64_t>;  // device, inode
  struct Named {
    std::string name;  // as the kernel writes it
    std::size_t file = 0;
  };
  // Some mounts give several files one inode number: then the names tell.
  using ByKey = std::map<Key, std::vector<Named>>;

  struct TrackedFile {
    std::size_t first = 0;  // the first path that names this file
    std::uint64_t size_bytes = 0;
    std::int64_t modified_nanoseconds = 0;
    std::uint64_t jumped_bytes = 0;  // where a descriptor was seen, too far to be believed yet
  };
  struct Mapping {
    std::size_t file = 0;
    MapsLine line;
    std::uint64_t end_bytes = 0;  // of what is touched
  };

  void learn_keys(const std::vector<std::string>& paths);
  std::size_t add_name(Key key, const std::string& name, std::size_t file);
  // The file of this key and name; also under another name, where no other file can be meant.
  [[nodiscard]] std::optional<std::size_t> file_of(const ByKey& files, Key key,
                                                   const std::string& name) const;
  [[nodiscard]] std::vector<Mapping> mappings();
  // The same by PROCMAP_QUERY; nothing where the kernel has none.
  [[nodiscard]] std::optional<std::vector<Mapping>> queried_mappings() const;
  void look_at_mappings(std::uint64_t scan_bytes);
  void look_at_descriptors(std::uint64_t scan_bytes);
  void mark_mapped(TouchedBytes& touched);
  [[nodiscard]] bool is_still_mapped(const MapsLine& line, const MapsQuery& query,
                                     std::optional<std::vector<Mapping>>& listed);
  void mark_read(TouchedBytes& touched);
  // Each open descriptor of one of the files, with its offset.
  struct Opened {
    int descriptor = -1;
    std::size_t file = 0;
    std::uint64_t offset = 0;
  };
  [[nodiscard]] std::vector<Opened> opened();
  [[nodiscard]] std::uint64_t touched_end(PageMap& pages, const Mapping& mapping,
                                          std::uint64_t scan_bytes) const;

  std::string root_;
  std::vector<TrackedFile> files_;
  std::vector<LoaderPosition> positions_;
  ByKey by_status_;   // as fstat tells device and inode
  ByKey by_mapping_;  // as maps does: not the same on btrfs and overlayfs
  std::string text_;  // reused, as maps may be long
  std::uint64_t looks_ = 0;
  std::vector<Mapping> mapped_;   // as the last mark_touched() that looked anew found them
  std::map<int, Opened> opened_;  // as the last mark_touched() found them
};

}  // namespace shardahead
