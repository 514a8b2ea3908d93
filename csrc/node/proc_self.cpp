#include "node/proc_self.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>

#include "base/proc_text.h"
#include "node/file_io.h"

namespace shardahead {
namespace {

// Takes a number from the front of the text, and the separator behind it.
std::optional<std::uint64_t> take_number(std::string_view& text, int base, char separator) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  if (text.empty()) return value;
  if (text.front() != separator) return std::nullopt;
  text.remove_prefix(1);
  return value;
}

bool is_touched(std::uint64_t entry) { return (entry >> 62U) != 0; }  // present, or swapped

// Of linux/fs.h since Linux 6.7, which the headers of many distributions have not. Asked by
// syscall(): the number of an ioctl() is an unsigned long with glibc, and an int with musl.
struct ScanRegion {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::uint64_t categories = 0;
};
struct ScanRequest {
  std::uint64_t size = 0;
  std::uint64_t flags = 0;
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::uint64_t walk_end = 0;
  std::uint64_t vec = 0;
  std::uint64_t vec_len = 0;
  std::uint64_t max_pages = 0;
  std::uint64_t category_inverted = 0;
  std::uint64_t category_mask = 0;
  std::uint64_t category_anyof_mask = 0;
  std::uint64_t return_mask = 0;
};
constexpr auto kScanPages = _IOWR('f', 16, ScanRequest);
constexpr std::uint64_t kPresentOrSwapped = (1U << 3U) | (1U << 4U);

// Of linux/fs.h since Linux 6.11.
struct MapsRequest {
  std::uint64_t size = 0;
  std::uint64_t query_flags = 0;
  std::uint64_t query_addr = 0;
  std::uint64_t vma_start = 0;
  std::uint64_t vma_end = 0;
  std::uint64_t vma_flags = 0;
  std::uint64_t vma_page_size = 0;
  std::uint64_t vma_offset = 0;
  std::uint64_t inode = 0;
  std::uint32_t dev_major = 0;
  std::uint32_t dev_minor = 0;
  std::uint32_t vma_name_size = 0;
  std::uint32_t build_id_size = 0;
  std::uint64_t vma_name_addr = 0;
  std::uint64_t build_id_addr = 0;
};
constexpr auto kQueryMaps = _IOWR('f', 17, MapsRequest);
constexpr std::uint64_t kCoveringOrNext = 0x10;
constexpr std::uint64_t kOfAFile = 0x20;

// Adjoining ones are one. They come in ascending order.
void append(std::vector<ByteRange>& found, ByteRange range) {
  if (!found.empty() && found.back().end() == range.offset) {
    found.back().length += range.length;
  } else {
    found.push_back(range);
  }
}

}  // namespace

std::optional<MapsLine> parse_maps_line(std::string_view line) {
  // begin-end rwxp offset major:minor inode [name]
  MapsLine found;
  const auto begin = take_number(line, 16, '-');
  const auto end = begin ? take_number(line, 16, ' ') : std::nullopt;
  if (!end || *end < *begin || line.size() < 5 || line[4] != ' ') return std::nullopt;
  found.begin = *begin;
  found.end = *end;
  found.readable = line[0] == 'r';
  found.writable = line[1] == 'w';
  found.executable = line[2] == 'x';
  found.shared = line[3] == 's';
  line.remove_prefix(5);
  const auto offset = take_number(line, 16, ' ');
  const auto device_major = offset ? take_number(line, 16, ':') : std::nullopt;
  const auto device_minor = device_major ? take_number(line, 16, ' ') : std::nullopt;
  const auto inode = device_minor ? take_number(line, 10, ' ') : std::nullopt;
  if (!inode) return std::nullopt;
  found.offset = *offset;
  found.device =
      makedev(static_cast<unsigned>(*device_major), static_cast<unsigned>(*device_minor));
  found.inode = *inode;
  return found;
}

std::string_view maps_name(std::string_view line) noexcept {
  const std::size_t begin = line.find('/');  // no field before the name has one
  return begin == std::string_view::npos ? std::string_view() : line.substr(begin);
}

std::optional<std::uint64_t> parse_fdinfo_position(std::string_view fdinfo) {
  return value_of(fdinfo, "pos");
}

ProcFile::ProcFile(const std::string& path)
    : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}

ProcFile::~ProcFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void ProcFile::read_all(std::string& text) const {
  constexpr std::size_t kGrowBytes = 64 * kKiB;
  std::size_t length = 0;
  for (;;) {
    if (text.size() < length + kGrowBytes) text.resize(length + 2 * kGrowBytes);
    const ssize_t count = ::read(descriptor_, text.data() + length, text.size() - length);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    length += static_cast<std::size_t>(count);
  }
  text.resize(length);
}

std::size_t ProcFile::read_at(std::uint64_t offset, void* buffer, std::size_t length) const {
  const ssize_t count = ::pread(descriptor_, buffer, length, static_cast<off_t>(offset));
  return count < 0 ? 0 : static_cast<std::size_t>(count);
}

std::optional<MapsLine> MapsQuery::next(std::uint64_t address, bool& works) const {
  MapsRequest request;
  request.size = sizeof request;
  request.query_flags = kCoveringOrNext | kOfAFile;
  request.query_addr = address;
  long result = 0;
  do {
    result = ::syscall(SYS_ioctl, file_.descriptor(), kQueryMaps, &request);
  } while (result < 0 && errno == EINTR);
  works = result == 0 || errno == ENOENT;  // ENOENT: there is none
  if (result < 0) return std::nullopt;
  return MapsLine{.begin = request.vma_start,
                  .end = request.vma_end,
                  .offset = request.vma_offset,
                  .device = makedev(request.dev_major, request.dev_minor),
                  .inode = request.inode,
                  .readable = (request.vma_flags & 1U) != 0,
                  .writable = (request.vma_flags & 2U) != 0,
                  .executable = (request.vma_flags & 4U) != 0,
                  .shared = (request.vma_flags & 8U) != 0};
}

std::string MapsQuery::name(std::uint64_t address) const {
  std::array<char, 4096> text{};
  MapsRequest request;
  request.size = sizeof request;
  request.query_addr = address;
  request.vma_name_size = text.size();
  request.vma_name_addr = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(text.data()));
  if (::syscall(SYS_ioctl, file_.descriptor(), kQueryMaps, &request) < 0) return {};
  // A line of maps has one line break, and writes others so.
  std::string found;
  for (const char* at = text.data(); *at != '\0'; ++at) {
    if (*at == '\n') {
      found += "\\012";
    } else {
      found += *at;
    }
  }
  return found;
}

bool PageMap::tells(const std::string& path) {
  const std::uint64_t own = 1;  // on this stack, hence there
  PageMap pages(path);
  const auto address = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(&own));
  return pages.read(address, 1) == 1 && is_touched(pages.entries_[0]);
}

std::vector<ByteRange> PageMap::touched(std::uint64_t begin, std::uint64_t end) {
  std::vector<ByteRange> found;
  if (scans_ && begin < end) {
    if (scan(begin, end, found)) return found;
    scans_ = false;
    found.clear();
  }
  for (std::uint64_t at = begin; at < end;) {
    const std::size_t count =
        read(at, std::min<std::uint64_t>((end - at) / page_bytes(), entries_.size()));
    if (count == 0) break;
    for (std::size_t i = 0; i < count; ++i, at += page_bytes()) {
      if (is_touched(entries_[i])) append(found, {at, page_bytes()});
    }
  }
  return found;
}

bool PageMap::scan(std::uint64_t begin, std::uint64_t end, std::vector<ByteRange>& found) {
  std::array<ScanRegion, 256> regions;
  ScanRequest request;
  request.size = sizeof request;
  request.vec = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(regions.data()));
  request.vec_len = regions.size();
  request.end = end;
  request.category_anyof_mask = kPresentOrSwapped;
  request.return_mask = kPresentOrSwapped;
  for (request.start = begin; request.start < end; request.start = request.walk_end) {
    long count = 0;
    do {
      count = ::syscall(SYS_ioctl, file_.descriptor(), kScanPages, &request);
    } while (count < 0 && errno == EINTR);
    if (count < 0 || request.walk_end <= request.start) return false;
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      append(found, {regions[i].start, regions[i].end - regions[i].start});
    }
  }
  return true;
}

std::uint64_t PageMap::touched_end(std::uint64_t begin, std::uint64_t end,
                                   std::uint64_t scan_bytes) {
  std::uint64_t found = 0;
  std::uint64_t stop = std::min(end, begin + std::min(scan_bytes, end - begin));
  for (std::uint64_t at = begin; at < stop;) {
    const std::uint64_t pages =
        std::min<std::uint64_t>((stop - at + page_bytes() - 1) / page_bytes(), entries_.size());
    const std::size_t count = read(at, pages);
    if (count == 0) break;
    for (std::size_t i = count; i > 0; --i) {
      if (!is_touched(entries_[i - 1])) continue;
      found = at + i * page_bytes();
      stop = found + std::min(scan_bytes, end - std::min(found, end));
      break;
    }
    at += count * page_bytes();
  }
  return found;
}

std::uint64_t PageMap::probe(std::uint64_t begin, std::uint64_t end, std::uint64_t turn) {
  constexpr std::uint64_t kProbes = 32;
  const std::uint64_t stride_pages = (end - begin) / page_bytes() / kProbes;
  if (stride_pages == 0) return 0;
  // The golden ratio's multiples fall between one another, wherever they stop.
  const std::uint64_t shift = (turn * 40503 % 65536) * stride_pages / 65536;
  for (std::uint64_t i = kProbes; i > 0; --i) {
    const std::uint64_t page = begin + ((i - 1) * stride_pages + shift) * page_bytes();
    if (read(page, 1) == 1 && is_touched(entries_[0])) return page;
  }
  return 0;
}

std::size_t PageMap::read(std::uint64_t address, std::uint64_t pages) {
  return file_.read_at(address / page_bytes() * sizeof(std::uint64_t), entries_.data(),
                       pages * sizeof(std::uint64_t)) /
         sizeof(std::uint64_t);
}

}  // namespace shardahead
