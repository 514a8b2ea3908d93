#include "node/residency.h"

#include <cerrno>

namespace shardahead {
namespace {

std::uint64_t bytes_of_pages(std::int64_t pages, ByteRange range) noexcept {
  return std::min(static_cast<std::uint64_t>(pages) * page_bytes(), range.length);
}

Residency answer(std::uint64_t bytes, ResidencySource source, int errno_value) noexcept {
  return {.resident_bytes = bytes, .source = source, .errno_value = errno_value};
}

Residency unknown(int errno_value, const char* reason) noexcept {
  return {.errno_value = errno_value, .reason = reason};
}

// Whoever neither owns the file nor may write to it is told by mincore that all is resident
// (since Linux 5.2, mm/mincore.c), so it is not asked.
constexpr const char* kNotOwner =
    "the kernel tells residency only to the owner of a file or to who may write to it";
constexpr const char* kRefused = "cachestat and mincore both failed";

// Or -errno; mincore would claim all to who is not told.
std::int64_t up_to_date_pages(FileIo& io, const File& file, ByteRange range) noexcept {
  if (!file.status().owned_or_writable) return -EPERM;
  if (range.empty()) return 0;
  return io.mincore(file.descriptor(),
                    grow_to_units(range, page_bytes(), file.status().size_bytes));
}

}  // namespace

const char* to_string(ResidencySource source) noexcept {
  switch (source) {
    case ResidencySource::cachestat: return "cachestat";
    case ResidencySource::mincore: return "mincore";
    case ResidencySource::unknown: break;
  }
  return "unknown";
}

Residency residency(FileIo& io, const File& file, ByteRange range) noexcept {
  range = intersect(range, {0, file.status().size_bytes});
  if (range.empty()) return answer(0, ResidencySource::cachestat, 0);
  const std::int64_t cached =
      file.status().overlay ? -EOPNOTSUPP : io.cachestat(file.descriptor(), range);
  if (cached >= 0) return answer(bytes_of_pages(cached, range), ResidencySource::cachestat, 0);
  const int refused = static_cast<int>(-cached);
  if (!file.status().owned_or_writable) {
    return unknown(refused, kNotOwner);
  }
  const ByteRange pages = grow_to_units(range, page_bytes(), file.status().size_bytes);
  const std::int64_t resident = io.mincore(file.descriptor(), pages);
  if (resident < 0) return unknown(refused, kRefused);
  return answer(bytes_of_pages(resident, range), ResidencySource::mincore, refused);
}

Residency residency(FileIo& io, const File& file) noexcept {
  return residency(io, file, {0, file.status().size_bytes});
}

std::optional<std::uint64_t> up_to_date_bytes(FileIo& io, const File& file,
                                              ByteRange range) noexcept {
  const std::uint64_t size_bytes = file.status().size_bytes;
  range = intersect(range, {0, size_bytes});
  const std::int64_t found = up_to_date_pages(io, file, range);
  if (found < 0) return std::nullopt;
  const ByteRange pages = grow_to_units(range, page_bytes(), size_bytes);
  const auto missing =
      align_up(pages.length, page_bytes()) / page_bytes() - static_cast<std::uint64_t>(found);
  return range.length - std::min(range.length, missing * page_bytes());
}

Residency usable_residency(FileIo& io, const File& file) noexcept {
  Residency found = residency(io, file);
  if (!found.resident_bytes || found.source != ResidencySource::cachestat) return found;
  const ByteRange whole{0, file.status().size_bytes};
  const std::uint64_t existing = *found.resident_bytes;
  const std::int64_t pages = existing > 0 ? up_to_date_pages(io, file, whole) : 0;
  if (pages < 0) return found;
  const std::uint64_t usable = bytes_of_pages(pages, whole);
  found.pending_bytes = existing - std::min(existing, usable);
  if (usable < existing) {
    found.resident_bytes = usable;
    found.source = ResidencySource::mincore;
  }
  return found;
}

int evict(FileIo& io, const File& file, ByteRange range) noexcept {
  if (range.empty()) return 0;
  if (const int result = io.fdatasync(file.descriptor()); result < 0 && result != -EINVAL) {
    return result;
  }
  return io.fadvise_dontneed(file.descriptor(), range);
}

}  // namespace shardahead
