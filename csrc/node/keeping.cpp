#include "node/keeping.h"

#include <algorithm>
#include <cerrno>
#include <exception>
#include <optional>

#include "node/mount.h"
#include "node/residency.h"

namespace shardahead {
namespace {

std::optional<std::uint64_t> resident(FileIo& io, const File& file, ByteRange range) {
  return residency(io, file, range).resident_bytes;
}

// The last page of the range that is not resident, by halving; nothing where there is none. The
// last, because the kernel reads it alone, while the first page of a file sets off readahead.
std::optional<ByteRange> absent_page(FileIo& io, const File& file, ByteRange range) {
  const std::uint64_t size_bytes = file.status().size_bytes;
  range = grow_to_units(intersect(range, {0, size_bytes}), page_bytes(), size_bytes);
  if (resident(io, file, range).value_or(range.length) == range.length) return std::nullopt;
  while (range.length > page_bytes()) {
    const std::uint64_t half = align_up(range.length / 2, page_bytes());
    const ByteRange first{range.offset, std::min(half, range.length)};
    const ByteRange second{first.end(), range.end() - first.end()};
    range = resident(io, file, second).value_or(0) == second.length ? first : second;
  }
  return range;
}

// cachestat alone does not do: of an overlay it tells nothing about the file below.
bool is_really_absent(FileIo& io, const File& file, ByteRange page) {
  const std::int64_t found = io.mincore(file.descriptor(), page);
  return found == 0 || found == -ENODEV;
}

using Told = std::function<Keeping()>;

Keeping after_open(FileIo& io, const File& file, ByteRange page, const Told& told) {
  const Keeping known = told ? told() : Keeping::unknown;
  if (keeps_nothing(known)) return known;
  const auto opened_again = File::open(io, file.path());
  const FileStatus& again = opened_again->status();
  if (again.inode != file.status().inode || again.size_bytes != file.status().size_bytes) {
    return Keeping::unknown;
  }
  const auto left = resident(io, file, page);
  if (!left) return Keeping::unknown;
  return *left > 0 ? Keeping::keeps : Keeping::emptied_by_open;
}

Keeping try_page(FileIo& io, const File& file, ByteRange page, const Told& told) {
  std::byte byte{};
  if (io.pread(file.descriptor(), &byte, {page.offset, 1}) != 1) return Keeping::unknown;
  const auto came = resident(io, file, page);
  if (!came) return Keeping::unknown;
  if (*came > 0) return after_open(io, file, page, told);
  return is_really_absent(io, file, page) ? Keeping::uncached : Keeping::unknown;
}

std::optional<Mount> mount_at(const std::string& path) {
  try {
    return mount_of(path);
  } catch (const std::exception&) {
    return std::nullopt;  // it has gone, or lies behind a simulated seam
  }
}

// Reading a hole of a tmpfs leaves no page behind, and what is memory already needs no page cache.
bool is_memory(const std::string& path) {
  const auto mount = mount_at(path);
  if (!mount) return false;
  for (const std::string& option : mount->options) {
    if (option == "dax" || option == "dax=always") return true;
  }
  return mount->mount_class == MountClass::memory;
}

// Its client keeps pages whatever the options of the mount are, and a trial costs two round trips
// or three before anything else is asked for.
bool is_nfs(const std::string& path) {
  const auto mount = mount_at(path);
  return mount && (mount->type == "nfs" || mount->type == "nfs4");
}

// A page may be evicted in between, or emptied by another process that opens the file: what looks
// bad must look bad again.
Keeping try_twice(FileIo& io, const File& file, ByteRange page, const Told& told) {
  const Keeping first = try_page(io, file, page, told);
  if (!keeps_nothing(first)) return first;
  const Keeping second = try_page(io, file, page, told);
  if (!keeps_nothing(second)) return second == Keeping::keeps ? second : Keeping::unknown;
  if (is_memory(file.path())) return Keeping::keeps;
  return first == second ? first : Keeping::emptied_by_open;
}

}  // namespace

const char* to_string(Keeping keeping) noexcept {
  switch (keeping) {
    case Keeping::keeps: return "keeps";
    case Keeping::emptied_by_open: return "emptied_by_open";
    case Keeping::uncached: return "uncached";
    case Keeping::unknown: break;
  }
  return "unknown";
}

KeepingCheck check_keeping(FileIo& io, const File& file, const std::vector<ByteRange>& ranges,
                           const std::function<Keeping()>& told) noexcept {
  try {
    if (is_nfs(file.path())) return {Keeping::keeps, 0};
    for (const ByteRange& range : ranges) {
      if (!resident(io, file, range)) return {};
      if (const auto page = absent_page(io, file, range)) {
        // The kernel may have read more than the page.
        const std::uint64_t before = resident(io, file, range).value_or(0);
        const Keeping found = try_twice(io, file, *page, told);
        const std::uint64_t after = resident(io, file, range).value_or(0);
        return {found, after - std::min(before, after)};
      }
    }
    // All is there, and nothing has to be fetched: will it stay?
    const Keeping found = after_open(io, file, ranges.front(), told);
    if (!keeps_nothing(found)) return {found, 0};
    const auto page = absent_page(io, file, ranges.front());
    return {page ? try_twice(io, file, *page, told) : Keeping::keeps, 0};
  } catch (const std::exception&) {
    return {};
  }
}

}  // namespace shardahead
