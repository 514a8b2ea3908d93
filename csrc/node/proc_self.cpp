#include "node/proc_self.h"

#include <fcntl.h>
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

bool touched(std::uint64_t entry) { return (entry >> 62U) != 0; }  // present, or swapped

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
      if (!touched(entries_[i - 1])) continue;
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
    if (read(page, 1) == 1 && touched(entries_[0])) return page;
  }
  return 0;
}

std::size_t PageMap::read(std::uint64_t address, std::uint64_t pages) {
  return file_.read_at(address / page_bytes() * sizeof(std::uint64_t), entries_.data(),
                       pages * sizeof(std::uint64_t)) /
         sizeof(std::uint64_t);
}

}  // namespace shardahead
