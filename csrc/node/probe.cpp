#include "node/probe.h"

#include <chrono>

#include "base/error.h"
#include "node/residency.h"

namespace shardahead {

std::optional<std::vector<ByteRange>> absent_ranges(FileIo& io, const File& file,
                                                    std::uint64_t limit_bytes) {
  std::vector<ByteRange> absent;
  bool known = true;
  const ByteRange whole{0, file.status().size_bytes};
  for_each_step(whole, kProbeStepBytes, [&](ByteRange step) {
    if (limit_bytes == 0) return false;
    const auto resident_bytes = residency(io, file, step).resident_bytes;
    known = resident_bytes.has_value();
    if (resident_bytes == std::uint64_t{0}) {
      step.length = std::min(step.length, limit_bytes);
      limit_bytes -= step.length;
      absent.push_back(step);
    }
    return known;
  });
  if (!known) return std::nullopt;
  return merge_ranges(std::move(absent));
}

// The kernel reads a lone page as it is asked for, without readahead, as long as nothing before it
// is resident and it is not the first of the file.
std::vector<double> read_latencies(FileIo& io, const File& file,
                                   const std::vector<std::uint64_t>& offsets) {
  using Clock = std::chrono::steady_clock;
  std::vector<std::byte> page(page_bytes());
  std::vector<double> seconds;
  for (const std::uint64_t offset : offsets) {
    const ByteRange range{align_down(offset, page_bytes()), page_bytes()};
    if (residency(io, file, range).resident_bytes != std::uint64_t{0}) continue;
    const auto begin = Clock::now();
    const std::int64_t count = io.pread(file.descriptor(), page.data(), range);
    const std::chrono::duration<double> taken = Clock::now() - begin;
    if (count < 0) throw IoException(file.error(static_cast<int>(-count), "pread", range.offset));
    if (count > 0) seconds.push_back(taken.count());
  }
  return seconds;
}

}  // namespace shardahead
