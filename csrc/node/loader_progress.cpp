#include "node/loader_progress.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <memory>

#include "base/folder_names.h"
#include "base/proc_text.h"
#include "node/file_io.h"

namespace shardahead {
namespace {

// The first page of a file, mapped without any access: where maps shows it, it shows its key.
class MappedPage {
 public:
  explicit MappedPage(int descriptor)
      : address_(::mmap(nullptr, page_bytes(), PROT_NONE, MAP_PRIVATE, descriptor, 0)) {}
  ~MappedPage() {
    if (address_ != MAP_FAILED) ::munmap(address_, page_bytes());
  }
  MappedPage(const MappedPage&) = delete;
  MappedPage& operator=(const MappedPage&) = delete;

  [[nodiscard]] std::uint64_t address() const noexcept {
    return address_ == MAP_FAILED ? 0 : reinterpret_cast<std::uintptr_t>(address_);
  }

 private:
  void* address_;
};

// The directory of a zip archive, at its end, lies in so much.
constexpr std::uint64_t kDirectoryBytes = kMiB;

// The numbers of this process's descriptors.
std::vector<int> descriptors(const std::string& folder) {
  constexpr std::size_t kMostDescriptors = 1'000'000;
  std::vector<int> found;
  for (const std::string& name : folder_names(folder, kMostDescriptors)) {
    int number = -1;
    std::from_chars(name.data(), name.data() + name.size(), number);
    if (number >= 0) found.push_back(number);
  }
  return found;
}

}  // namespace

// Told by their form, for life: a list of addresses would be out of date as soon as it was read.
bool is_own_mapping(const MapsLine& line) noexcept {
  const bool accessible = line.readable || line.writable || line.executable;
  const bool populating = line.shared && line.readable && !line.writable && !line.executable &&
                          line.end - line.begin == kPopulateMappedBytes &&
                          line.offset % kHugePageBytes == 0;
  return !accessible || populating;
}

LoaderProgress::LoaderProgress(const std::vector<std::string>& paths, std::string root)
    : root_(std::move(root)), files_(paths.size()), positions_(paths.size()) {
  learn_keys(paths);
}

void LoaderProgress::learn_keys(const std::vector<std::string>& paths) {
  constexpr std::size_t kMostMapped = 256;  // at once: there is a limit on mappings
  FileIo& io = system_file_io();
  for (std::size_t start = 0; start < paths.size(); start += kMostMapped) {
    std::vector<std::unique_ptr<MappedPage>> kept;
    std::map<std::uint64_t, std::size_t> by_address;
    std::map<std::size_t, std::pair<Key, std::string>> keys;
    for (std::size_t i = start; i < std::min(start + kMostMapped, paths.size()); ++i) {
      files_[i].first = i;
      FileStatus status;
      if (io.status(paths[i], status) < 0 || !S_ISREG(status.mode)) continue;
      const int descriptor = io.open(paths[i]);
      if (descriptor < 0) continue;
      if (io.status(descriptor, status) == 0) {
        const Key key{status.device, status.inode};
        const std::string name = io.real_path(descriptor);
        files_[i].first = add_name(key, name, i);
        files_[i].size_bytes = status.size_bytes;
        files_[i].modified_nanoseconds = status.modified_nanoseconds;
        if (files_[i].first == i) {
          keys[i] = {key, name};
          kept.push_back(std::make_unique<MappedPage>(descriptor));
          if (kept.back()->address() != 0) by_address[kept.back()->address()] = i;
        }
      }
      io.close(descriptor);
    }
    ProcFile(root_ + "/proc/self/maps").read_all(text_);
    for_each_mapping(text_, [&](const MapsLine& line, std::string_view text) {
      const auto found = by_address.find(line.begin);
      if (found == by_address.end()) return;
      keys[found->second] = {{line.device, line.inode}, std::string(maps_name(text))};
    });
    for (auto& [file, key] : keys) by_mapping_[key.first].push_back({std::move(key.second), file});
  }
}

// The first file of this key and name, which may be this one.
std::size_t LoaderProgress::add_name(Key key, const std::string& name, std::size_t file) {
  std::vector<Named>& alike = by_status_[key];
  const auto known = std::ranges::find(alike, name, &Named::name);
  if (known != alike.end()) return known->file;
  alike.push_back({name, file});
  return file;
}

std::optional<std::size_t> LoaderProgress::file_of(const ByKey& files, Key key,
                                                   const std::string& name) const {
  const auto found = files.find(key);
  if (found == files.end()) return std::nullopt;
  for (const Named& each : found->second) {
    if (each.name == name) return each.file;
  }
  if (found->second.size() > 1) return std::nullopt;
  // A hard link, a file that was deleted meanwhile, or another file with this number.
  const std::size_t only = found->second.front().file;
  FileStatus status;
  if (name.empty() || system_file_io().status(name, status) < 0) return only;
  const bool same = status.size_bytes == files_[only].size_bytes &&
                    status.modified_nanoseconds == files_[only].modified_nanoseconds;
  return same ? std::optional(only) : std::nullopt;
}

const std::vector<LoaderPosition>& LoaderProgress::look(std::uint64_t scan_bytes) {
  ++looks_;
  look_at_mappings(scan_bytes);
  look_at_descriptors(scan_bytes);
  for (std::size_t i = 0; i < files_.size(); ++i) positions_[i] = positions_[files_[i].first];
  return positions_;
}

std::optional<std::vector<LoaderProgress::Mapping>> LoaderProgress::queried_mappings() const {
  std::vector<Mapping> found;
  const MapsQuery query(root_ + "/proc/self/maps");
  bool works = false;
  for (std::uint64_t address = 0;;) {
    const auto line = query.next(address, works);
    if (!works) return std::nullopt;
    if (!line) return found;
    address = line->end;
    const Key key{line->device, line->inode};
    if (!by_mapping_.contains(key) || is_own_mapping(*line)) continue;
    const auto file = file_of(by_mapping_, key, query.name(line->begin));
    if (file) found.push_back({*file, *line, 0});
  }
}

std::vector<LoaderProgress::Mapping> LoaderProgress::mappings() {
  if (auto queried = queried_mappings()) return std::move(*queried);
  std::vector<Mapping> found;
  ProcFile(root_ + "/proc/self/maps").read_all(text_);
  for_each_mapping(text_, [&](const MapsLine& line, std::string_view text) {
    const Key key{line.device, line.inode};
    if (!by_mapping_.contains(key) || is_own_mapping(line)) return;
    const auto file = file_of(by_mapping_, key, std::string(maps_name(text)));
    if (file) found.push_back({*file, line, 0});
  });
  return found;
}

void LoaderProgress::look_at_mappings(std::uint64_t scan_bytes) {
  std::vector<Mapping> found = mappings();
  for (LoaderPosition& position : positions_) position.mapped = false;
  if (found.empty()) return;
  bool advanced = false;
  PageMap pages(root_ + "/proc/self/pagemap");
  for (Mapping& mapping : found) {
    positions_[mapping.file].mapped = true;
    mapping.end_bytes = touched_end(pages, mapping, scan_bytes);
    advanced = advanced || mapping.end_bytes > positions_[mapping.file].end_bytes;
  }
  if (!advanced) return;
  // Meanwhile the addresses may have become something else's: only what is still mapped counts.
  // What was unmapped and is mapped again there, within this look, cannot be told from it.
  const std::vector<Mapping> still = mappings();
  for (const Mapping& mapping : found) {
    // maps is in the order of addresses.
    const auto now = std::lower_bound(
        still.begin(), still.end(), mapping.line.begin,
        [](const Mapping& each, std::uint64_t address) { return each.line.begin < address; });
    if (now == still.end() || now->line != mapping.line) continue;
    std::uint64_t& end_bytes = positions_[mapping.file].end_bytes;
    end_bytes = std::max(end_bytes, mapping.end_bytes);
  }
}

std::uint64_t LoaderProgress::touched_end(PageMap& pages, const Mapping& mapping,
                                          std::uint64_t scan_bytes) const {
  const MapsLine& line = mapping.line;
  const std::uint64_t size_bytes = files_[mapping.file].size_bytes;
  const std::uint64_t known_bytes = positions_[mapping.file].end_bytes;
  const ByteRange mapped =
      intersect({line.offset, line.end - line.begin}, {0, align_up(size_bytes, page_bytes())});
  const ByteRange ahead = intersect(mapped, {align_up(known_bytes, page_bytes()), mapped.end()});
  if (ahead.empty()) return 0;
  const std::uint64_t begin = line.begin + (ahead.offset - line.offset);
  const std::uint64_t end = begin + ahead.length;
  std::uint64_t touched = pages.touched_end(begin, end, scan_bytes);
  if (touched == 0 && ahead.length > scan_bytes) {
    const std::uint64_t page = pages.probe(begin + align_up(scan_bytes, page_bytes()), end, looks_);
    if (page != 0) touched = pages.touched_end(page, end, scan_bytes);
  }
  return touched == 0 ? 0 : std::min(line.offset + (touched - line.begin), size_bytes);
}

// Our own descriptors of these files stay at 0: we only ever pread.
std::vector<LoaderProgress::Opened> LoaderProgress::opened() {
  std::vector<Opened> seen;
  const std::string folder = root_ + "/proc/self/fd";
  for (const int descriptor : descriptors(folder)) {
    // By its name in /proc: other threads may close the number and open it anew at any time.
    const std::string name = folder + "/" + std::to_string(descriptor);
    const auto find_file = [&]() -> std::optional<std::size_t> {
      struct stat status{};
      if (::stat(name.c_str(), &status) != 0) return std::nullopt;
      const Key key{status.st_dev, status.st_ino};
      return by_status_.contains(key) ? file_of(by_status_, key, link_target(name)) : std::nullopt;
    };
    const auto file = find_file();
    if (!file) continue;
    ProcFile(root_ + "/proc/self/fdinfo/" + std::to_string(descriptor)).read_all(text_);
    const auto position = parse_fdinfo_position(text_);
    // Meanwhile the number may have become another file's.
    if (position && find_file() == file) seen.push_back({descriptor, *file, *position});
  }
  return seen;
}

// One that has jumped further than `scan_bytes` counts once the next look finds it there or beyond,
// and near the end of the file only where something has been read before: the reader of a zip
// archive (torch.load) first goes to the directory at its end, and comes back.
void LoaderProgress::look_at_descriptors(std::uint64_t scan_bytes) {
  std::map<std::size_t, std::uint64_t> seen;
  for (const Opened& each : opened()) seen[each.file] = std::max(seen[each.file], each.offset);
  for (std::size_t i = 0; i < files_.size(); ++i) {
    const auto found = seen.find(i);
    const std::uint64_t offset =
        found == seen.end() ? 0 : std::min(found->second, files_[i].size_bytes);
    std::uint64_t& end_bytes = positions_[i].end_bytes;
    std::uint64_t& jumped_bytes = files_[i].jumped_bytes;
    const bool near = offset <= end_bytes || offset - end_bytes <= scan_bytes;
    const bool directory =
        offset + kDirectoryBytes > files_[i].size_bytes && end_bytes < kDirectoryBytes;
    if (near || (jumped_bytes != 0 && offset >= jumped_bytes && !directory)) {
      end_bytes = std::max(end_bytes, offset);
      jumped_bytes = 0;
    } else {
      jumped_bytes = offset;
    }
  }
}

void LoaderProgress::mark_touched(TouchedBytes& touched, bool anew) {
  if (!anew) return mark_mapped(touched);
  mapped_ = mappings();
  mark_mapped(touched);
  mark_read(touched);
}

void LoaderProgress::mark_mapped(TouchedBytes& touched) {
  if (mapped_.empty()) return;
  PageMap pages(root_ + "/proc/self/pagemap");
  const MapsQuery query(root_ + "/proc/self/maps");
  std::optional<std::vector<Mapping>> listed;
  for (const Mapping& mapping : mapped_) {
    const MapsLine& line = mapping.line;
    std::vector<ByteRange> seen;
    for (const ByteRange& open :
         touched.untouched(mapping.file, {line.offset, line.end - line.begin})) {
      const std::uint64_t begin = line.begin + (open.offset - line.offset);
      const std::uint64_t end = align_up(begin + open.length, page_bytes());
      for (const ByteRange& found : pages.touched(align_down(begin, page_bytes()), end)) {
        seen.push_back({line.offset + (found.offset - line.begin), found.length});
      }
    }
    // As in look_at_mappings().
    if (seen.empty() || !is_still_mapped(line, query, listed)) continue;
    for (const ByteRange& range : seen) touched.mark(mapping.file, range);
  }
}

bool LoaderProgress::is_still_mapped(const MapsLine& line, const MapsQuery& query,
                                     std::optional<std::vector<Mapping>>& listed) {
  bool works = false;
  const auto now = query.next(line.begin, works);
  if (works) return now == line;
  if (!listed) listed = mappings();
  return std::ranges::any_of(*listed, [&](const Mapping& each) { return each.line == line; });
}

void LoaderProgress::mark_read(TouchedBytes& touched) {
  std::map<int, Opened> now;
  for (const Opened& each : opened()) {
    now[each.descriptor] = each;
    const auto known = opened_.find(each.descriptor);
    const bool same = known != opened_.end() && known->second.file == each.file;
    const std::uint64_t from = same ? known->second.offset : 0;
    const bool directory = !same && each.offset + kDirectoryBytes > files_[each.file].size_bytes &&
                           each.offset > kDirectoryBytes;
    if (each.offset <= from || each.offset - from > kMostReadBytes || directory) continue;
    touched.mark(each.file, {from, each.offset - from});
  }
  opened_ = std::move(now);
}

}  // namespace shardahead
