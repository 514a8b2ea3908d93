// file_writer: the seam through which the core writes to files, as file_io.h is the one through
// which it reads them; a faulty twin is in faulty_file_writer.h. It decides nothing. Any thread,
// never throws, retries EINTR, returns a result >= 0 or -errno.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/byte_range.h"

namespace shardahead {

class FileWriter {
 public:
  FileWriter() = default;
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  virtual ~FileWriter() = default;

  // May be short.
  virtual std::int64_t pwrite(int descriptor, const std::byte* bytes, ByteRange range) noexcept = 0;
  // Starts to write to the disk what of the range is not there yet, and waits for none of it. It
  // promises nothing of what a crash leaves: that takes fdatasync.
  virtual int start_writing(int descriptor, ByteRange range) noexcept = 0;
};

// Stateless and never destroyed, as system_file_io().
FileWriter& system_file_writer() noexcept;

}  // namespace shardahead
