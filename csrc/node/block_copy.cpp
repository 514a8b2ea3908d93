#include "node/block_copy.h"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <new>

// Its functions become part of this file alone: a program may have another version of them.
#define XXH_INLINE_ALL
#include <xxhash/xxhash.h>

namespace shardahead {
namespace {

// Small enough to be read, digested and written without leaving the processor's own cache.
constexpr std::uint64_t kPieceBytes = 256 * kKiB;

BlockCopy failed(int errno_value, std::uint64_t offset, bool writing) noexcept {
  return {.errno_value = errno_value, .writing = writing, .offset = offset};
}

int write_full(FileWriter& writer, int descriptor, const std::byte* bytes, ByteRange range,
               std::uint64_t& done) noexcept {
  for (done = 0; done < range.length;) {
    const std::int64_t written =
        writer.pwrite(descriptor, bytes + done, {range.offset + done, range.length - done});
    if (written < 0) return static_cast<int>(written);
    if (written == 0) return -ENOSPC;
    done += static_cast<std::uint64_t>(written);
  }
  return 0;
}

// `writer` is none where the digest alone is asked for.
BlockCopy copy(FileIo& io, int from, FileWriter* writer, int to, ByteRange range) noexcept {
  const std::unique_ptr<std::byte[]> buffer(new (std::nothrow) std::byte[kPieceBytes]);
  if (!buffer) return failed(ENOMEM, range.offset, false);
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  for (std::uint64_t at = range.offset; at < range.end();) {
    const ByteRange piece{at, std::min(kPieceBytes, range.end() - at)};
    std::uint64_t done = 0;
    const int read = pread_full(io, from, buffer.get(), piece, done);
    if (read < 0) return failed(-read, at + done, false);
    if (done < piece.length) return failed(ENODATA, at + done, false);
    XXH3_64bits_update(&state, buffer.get(), piece.length);
    if (writer != nullptr) {
      const int written = write_full(*writer, to, buffer.get(), piece, done);
      if (written < 0) return failed(-written, at + done, true);
    }
    at = piece.end();
  }
  return {.digest = XXH3_64bits_digest(&state)};
}

}  // namespace

BlockCopy copy_block(FileIo& io, FileWriter& writer, int from, int to, ByteRange range) noexcept {
  BlockCopy copied = copy(io, from, &writer, to, range);
  // What waits in memory to be written would be written all at once, while others wait for it.
  if (copied.errno_value == 0) writer.start_writing(to, range);
  return copied;
}

BlockCopy digest_block(FileIo& io, int descriptor, ByteRange range) noexcept {
  return copy(io, descriptor, nullptr, -1, range);
}

std::uint64_t digest_of(const std::byte* bytes, std::uint64_t length_bytes) noexcept {
  return XXH3_64bits(bytes, length_bytes);
}

}  // namespace shardahead
