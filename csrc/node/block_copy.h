// block_copy: copies bytes of one open file into another, and tells their digest. Which bytes, and
// what they are for, it does not know. Any thread; each call has a buffer of its own, never throws.
#pragma once

#include <cstdint>

#include "base/byte_range.h"
#include "node/file_io.h"
#include "node/file_writer.h"

namespace shardahead {

struct BlockCopy {
  std::uint64_t digest = 0;  // XXH3 of 64 bits, of all bytes of the range
  int errno_value = 0;       // 0: all of it is done
  bool writing = false;      // the error is of the file that is written
  std::uint64_t offset = 0;  // where the error lies
};

// A file that ends within the range is ENODATA, a disk that takes nothing more ENOSPC.
BlockCopy copy_block(FileIo& io, FileWriter& writer, int from, int to, ByteRange range) noexcept;

// The digest alone, of what the file holds.
BlockCopy digest_block(FileIo& io, int descriptor, ByteRange range) noexcept;

// Of bytes in memory, which the caller keeps.
std::uint64_t digest_of(const std::byte* bytes, std::uint64_t length_bytes) noexcept;

}  // namespace shardahead
