#include "engine/held_bytes.h"

#include <cerrno>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/error.h"
#include "engine/consumer.h"

namespace shardahead {

HeldBytes::HeldBytes(std::shared_ptr<MappedFile> file, ByteRange range,
                     std::shared_ptr<Consumption> consumption, std::uint64_t position)
    : file_(std::move(file)),
      range_(range),
      consumption_(std::move(consumption)),
      position_(position) {
  if (consumption_) consumption_->hand_out({position_, range_.length});
}

HeldBytes::~HeldBytes() {
  // In a forked child another thread of the parent may have held its mutex.
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

void require_readable(FileIo& io, const FileTable& files, std::size_t file,
                      const MappedFile& mapped, std::uint64_t offset, const ByteRuns& runs) {
  if (files.status(file).owned_or_writable) return;
  for (const ByteRange& range : runs.joined(page_bytes() - 1).ranges()) {
    require_readable(io, files, file, mapped, {offset + range.offset, range.length});
  }
}

}  // namespace shardahead
