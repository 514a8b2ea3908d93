#include "node/file_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <new>

namespace shardahead {
namespace {

class SystemFileWriter : public FileWriter {
 public:
  std::int64_t pwrite(int descriptor, const std::byte* bytes, ByteRange range) noexcept override {
    ssize_t written = 0;
    do {
      written = ::pwrite(descriptor, bytes, range.length, static_cast<off_t>(range.offset));
    } while (written < 0 && errno == EINTR);
    return written < 0 ? -errno : written;
  }

  int start_writing(int descriptor, ByteRange range) noexcept override {
    const int result = ::sync_file_range(descriptor, static_cast<off_t>(range.offset),
                                         static_cast<off_t>(range.length), SYNC_FILE_RANGE_WRITE);
    return result < 0 ? -errno : 0;
  }
};

}  // namespace

FileWriter& system_file_writer() noexcept {
  alignas(SystemFileWriter) static std::byte storage[sizeof(SystemFileWriter)];
  static SystemFileWriter* const instance = ::new (storage) SystemFileWriter;
  return *instance;
}

}  // namespace shardahead
