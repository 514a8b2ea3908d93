#include "residency.h"

#include <cerrno>

namespace shardahead {
namespace {

std::uint64_t bytes_of_pages(std::int64_t pages, ByteRange range) noexcept {
  return std::min(static_cast<std::uint64_t>(pages) * page_bytes(), range.length);
}

// Whoever neither owns the file nor may write to it is told by mincore that all is resident
// (since Linux 5.2, mm/mincore.c), so it is not asked.
constexpr const char* kNotOwner =
    "the kernel tells residency only to the owner of a file or to who may write to it";
constexpr const char* kRefused = "cachestat and mincore both failed";

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
  if (range.empty()) return {0, ResidencySource::cachestat, 0, ""};
  const std::int64_t cached =
      file.status().overlay ? -EOPNOTSUPP : io.cachestat(file.descriptor(), range);
  if (cached >= 0) return {bytes_of_pages(cached, range), ResidencySource::cachestat, 0, ""};
  const int refused = static_cast<int>(-cached);
  if (!file.status().owned_or_writable) {
    return {std::nullopt, ResidencySource::unknown, refused, kNotOwner};
  }
  const ByteRange pages = grow_to_units(range, page_bytes(), file.status().size_bytes);
  const std::int64_t resident = io.mincore(file.descriptor(), pages);
  if (resident >= 0)
    return {bytes_of_pages(resident, range), ResidencySource::mincore, refused, ""};
  return {std::nullopt, ResidencySource::unknown, refused, kRefused};
}

Residency residency(FileIo& io, const File& file) noexcept {
  return residency(io, file, {0, file.status().size_bytes});
}

std::optional<std::uint64_t> up_to_date_bytes(FileIo& io, const File& file,
                                              ByteRange range) noexcept {
  if (!file.status().owned_or_writable) return std::nullopt;  // mincore would claim all
  const std::uint64_t size_bytes = file.status().size_bytes;
  range = intersect(range, {0, size_bytes});
  if (range.empty()) return 0;
  const ByteRange pages = grow_to_units(range, page_bytes(), size_bytes);
  const std::int64_t found = io.mincore(file.descriptor(), pages);
  if (found < 0) return std::nullopt;
  const auto missing =
      align_up(pages.length, page_bytes()) / page_bytes() - static_cast<std::uint64_t>(found);
  return range.length - std::min(range.length, missing * page_bytes());
}

int evict(FileIo& io, const File& file, ByteRange range) noexcept {
  if (range.empty()) return 0;
  if (const int result = io.fdatasync(file.descriptor()); result < 0 && result != -EINVAL) {
    return result;
  }
  return io.fadvise_dontneed(file.descriptor(), range);
}

}  // namespace shardahead
