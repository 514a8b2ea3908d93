#include "engine/held_bytes.h"

#include <cerrno>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/error.h"
#include "engine/consumer.h"

namespace shardahead {

HeldBytes::HeldBytes(std::shared_ptr<MappedFile> file, ByteRange range,
                     std::shared_ptr<Consumption> consumption, std::uint64_t position,
                     std::shared_ptr<TouchedPages> touched, std::size_t number)
    : file_(std::move(file)),
      range_(range),
      consumption_(std::move(consumption)),
      position_(position),
      touched_(std::move(touched)),
      number_(number) {
  if (consumption_) consumption_->hand_out({position_, range_.length});
  if (touched_) touched_->hold(number_, file_);
}

HeldBytes::~HeldBytes() {
  // In a forked child another thread of the parent may have held its mutex.
  if (touched_ && process_.is_here()) touched_->release(number_, *file_, range_);
  if (consumption_ && process_.is_here()) consumption_->release({position_, range_.length});
  MappedFile::let_go(std::move(file_));
}

void require_within(const MappedFile& mapped, ByteRange range) {
  const std::uint64_t size_bytes = mapped.size_bytes();
  if (range.offset <= size_bytes && range.length <= size_bytes - range.offset) return;
  throw std::invalid_argument("bytes " + std::to_string(range.offset) + " to " +
                              std::to_string(range.end()) + " are not in a file of " +
                              std::to_string(size_bytes) + " bytes");
}

void require_readable(FileIo& io, const FileTable& files, std::size_t file,
                      const MappedFile& mapped, ByteRange range) {
  if (files.status(file).owned_or_writable || mapped.bring_in(range) != -EFAULT) return;
  const std::string& path = files.path(file);
  StepTable own_steps;  // neither these nor the open files are a forked child's
  FetchResult result =
      fetch_for_consumer(io, own_steps, [&] { return File::open(io, path); }, path, range, true);
  if (!result.error && mapped.bring_in(range) == -EFAULT) {
    result.error = {EIO, "madvise", path, range.offset, ""};
  }
  if (result.error) throw IoException(std::move(*result.error));
}

std::vector<ByteRange> looked_at(std::uint64_t offset, const ByteRuns& runs,
                                 const std::optional<std::vector<ByteRange>>& expected) {
  std::vector<ByteRange> ranges = runs.joined(page_bytes() - 1).ranges();
  for (ByteRange& range : ranges) range.offset += offset;
  if (!expected) return ranges;
  std::vector<ByteRange> found;
  for (const ByteRange& each : *expected) {
    const std::vector<ByteRange> both = intersect(ranges, each);
    found.insert(found.end(), both.begin(), both.end());
  }
  return found;
}

void require_readable_untouched(FileTable& files, std::size_t file, ByteRange range) {
  if (files.status(file).owned_or_writable) return;
  const auto opened = files.acquire(file);
  const MappedFile apart(*opened);
  require_readable(opened->io(), files, file, apart, range);
}

}  // namespace shardahead
