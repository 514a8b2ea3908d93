// Tests of block_copy: what is copied and digested, and what is told of files that fail.
#include "node/block_copy.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "faulty_file_io.h"
#include "test_support.h"

namespace shardahead {
namespace {

constexpr std::uint64_t kSize = 3 * kMiB + 12345;

// Takes what it is told to, then fails.
class FullDisk : public FileWriter {
 public:
  FullDisk(std::uint64_t room, std::uint64_t at_once) : room_(room), at_once_(at_once) {}
  std::int64_t pwrite(int descriptor, const std::byte* bytes, ByteRange range) noexcept override {
    if (range.offset >= room_) return -ENOSPC;
    const std::uint64_t length = std::min({range.length, room_ - range.offset, at_once_});
    return system_file_writer().pwrite(descriptor, bytes, {range.offset, length});
  }
  int start_writing(int, ByteRange) noexcept override {
    ++started;
    return 0;
  }
  int started = 0;

 private:
  std::uint64_t room_, at_once_;
};

std::vector<std::byte> bytes_of(int descriptor, ByteRange range) {
  std::vector<std::byte> found(range.length);
  std::uint64_t done = 0;
  CHECK(pread_full(system_file_io(), descriptor, found.data(), range, done) == 0);
  found.resize(done);
  return found;
}

class Files {
 public:
  Files() {
    for (std::size_t i = 0; i < content.size(); ++i) {
      content[i] = static_cast<std::byte>(i * 2654435761U >> 13U);
    }
    CHECK(::pwrite(from, content.data(), kSize, 0) == static_cast<ssize_t>(kSize));
  }
  ~Files() {
    ::close(from);
    ::close(to);
  }
  Files(const Files&) = delete;
  Files& operator=(const Files&) = delete;
  [[nodiscard]] std::vector<std::byte> written(ByteRange range) const {
    return bytes_of(to, range);
  }

 private:
  testing::TemporaryFolder folder_;

 public:
  std::vector<std::byte> content = std::vector<std::byte>(kSize);
  int from = ::open(folder_.write("from", 0).c_str(), O_RDWR | O_CLOEXEC);
  int to = ::open(folder_.write("to", 0).c_str(), O_RDWR | O_CLOEXEC);
};

TEST_SUITE("block_copy") {
  TEST_CASE("what is copied lies where it lay, and nothing else is written") {
    const Files files;
    const ByteRange range{kMiB + 77, kMiB + 500};
    const BlockCopy done =
        copy_block(system_file_io(), system_file_writer(), files.from, files.to, range);
    CHECK(done.errno_value == 0);
    const auto begin = files.content.begin() + static_cast<std::ptrdiff_t>(range.offset);
    const std::vector<std::byte> expected(begin, begin + static_cast<std::ptrdiff_t>(range.length));
    CHECK(files.written(range) == expected);
    CHECK(files.written({0, range.offset}) == std::vector<std::byte>(range.offset));
    CHECK(files.written({range.end(), kMiB}).empty());
    CHECK(done.digest == digest_of(expected.data(), expected.size()));
    CHECK(digest_block(system_file_io(), files.to, range).digest == done.digest);
  }

  TEST_CASE("a digest tells one byte from another, and is that of the library's own description") {
    const Files files;
    CHECK(digest_of(nullptr, 0) == 0x2D06800538D394C2U);  // XXH3_64bits of nothing, seed 0
    const BlockCopy before = digest_block(system_file_io(), files.from, {0, kSize});
    auto content = files.content;
    content[kSize - 1] ^= std::byte{1};
    CHECK(digest_of(content.data(), content.size()) != before.digest);
    CHECK(digest_of(files.content.data(), kSize) == before.digest);
  }

  TEST_CASE("short reads and short writes go on") {
    const Files files;
    FaultyFileIo io(system_file_io());
    io.add({.kind = FaultKind::short_read, .limit_bytes = 4097});
    FullDisk disk(kSize, 70'001);
    CHECK(copy_block(io, disk, files.from, files.to, {0, kSize}).errno_value == 0);
    CHECK(files.written({0, kSize}) == files.content);
    CHECK(disk.started == 1);
  }

  TEST_CASE("an error says which of the two files, and where") {
    const Files files;
    FaultyFileIo io(system_file_io());
    io.add({.path_suffix = "from", .from_offset = 2 * kMiB, .errno_value = ESTALE});
    FullDisk disk(kMiB + 5, kMiB);
    const BlockCopy full = copy_block(io, disk, files.from, files.to, {0, kSize});
    CHECK(full.errno_value == ENOSPC);
    CHECK(full.writing);
    CHECK(full.offset == kMiB + 5);
    CHECK(disk.started == 0);
    const BlockCopy stale =
        copy_block(system_file_io(), system_file_writer(), files.from, files.to, {0, kSize + 1});
    CHECK(stale.errno_value == ENODATA);
    CHECK_FALSE(stale.writing);
    CHECK(stale.offset == kSize);
  }
}

}  // namespace
}  // namespace shardahead
