// reader_file_io: the seam of a simulated rank's reader, and of nothing else of that rank: it tells
// what is read, and does what a canary has planted in the path of the bytes. One real thread.
#pragma once

#include <algorithm>
#include <functional>
#include <iterator>
#include <map>
#include <string>

#include "faulty_file_io.h"
#include "watched_claims.h"

namespace shardahead::testing {

class ReaderFileIo final : public FaultyFileIo {
 public:
  // By pread() or out of a mapping.
  using Reads = std::function<void(std::uint32_t file, ByteRange range)>;

  ReaderFileIo(FileIo& inner, Bug bug, Reads reads)
      : FaultyFileIo(inner), bug_(bug), reads_(std::move(reads)) {}

  int open(const std::string& path) noexcept override {
    const int descriptor = FaultyFileIo::open(path);
    if (descriptor >= 0) files_[descriptor] = static_cast<std::uint32_t>(std::stoul(path));
    return descriptor;
  }
  std::int64_t pread(int descriptor, std::byte* buffer, ByteRange range) noexcept override {
    const auto once = [&] {
      reads_(files_.at(descriptor), range);
      return FaultyFileIo::pread(descriptor, buffer, range);
    };
    if (bug_ == Bug::fetched_twice) once();
    return spoil(once(), buffer, range.length);
  }
  int map(int descriptor, std::uint64_t length_bytes, MappedFor use,
          std::byte*& memory) noexcept override {
    const int result = FaultyFileIo::map(descriptor, length_bytes, use, memory);
    if (result == 0) mapped_[memory] = files_.at(descriptor);
    return result;
  }
  std::int64_t copy_mapped(const std::byte* from, std::uint64_t length_bytes,
                           std::byte* to) noexcept override {
    const auto& [begin, file] = *std::prev(mapped_.upper_bound(from));
    const auto once = [&, of = file, offset = static_cast<std::uint64_t>(from - begin)] {
      reads_(of, {offset, length_bytes});
      return FaultyFileIo::copy_mapped(from, length_bytes, to);
    };
    if (bug_ == Bug::fetched_twice) once();
    return spoil(once(), to, length_bytes);
  }

 private:
  [[nodiscard]] std::int64_t spoil(std::int64_t result, std::byte* buffer,
                                   std::uint64_t length_bytes) const noexcept {
    if (bug_ == Bug::misplaced && result > 1) std::rotate(buffer, buffer + 1, buffer + result);
    if (bug_ == Bug::error_lost && result < 0) return static_cast<std::int64_t>(length_bytes);
    return result;
  }

  Bug bug_;
  Reads reads_;
  std::map<int, std::uint32_t> files_;  // by descriptor, which is never given out again
  std::map<const std::byte*, std::uint32_t> mapped_;  // by where they begin
};

}  // namespace shardahead::testing
