// mapped_source: real files; what cannot be read ends a copy, and no one dies of it.
#include "node/mapped_source.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <vector>

#include "faulty_file_io.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("mapped_source");

namespace {

const std::uint64_t kPageBytes = page_bytes();

std::vector<std::byte> counted(std::uint64_t size_bytes) {
  std::vector<std::byte> bytes(size_bytes);
  for (std::uint64_t i = 0; i < size_bytes; ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 251);
  return bytes;
}

std::string write(const TemporaryFolder& folder, const std::vector<std::byte>& bytes) {
  const std::string path = folder.path("a");
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  return path;
}

}  // namespace

TEST_CASE("any range, up to the end of the file") {
  const TemporaryFolder folder;
  const std::uint64_t size_bytes = 40 * kPageBytes + 123;
  const auto expected = counted(size_bytes);
  const MappedSource source(*File::open(system_file_io(), write(folder, expected)));
  CHECK(source.size_bytes() == size_bytes);
  for (const ByteRange range :
       {ByteRange{0, size_bytes}, {1, 1}, {kPageBytes - 1, 2}, {size_bytes - 1, 1}, {17, 100000}}) {
    std::vector<std::byte> bytes(range.length);
    REQUIRE(source.copy(range, bytes.data()) == range.length);
    CHECK(std::equal(bytes.begin(), bytes.end(),
                     expected.begin() + static_cast<std::ptrdiff_t>(range.offset)));
  }
  std::vector<std::byte> bytes(100);
  CHECK(source.copy({size_bytes - 10, 100}, bytes.data()) == 10);
  CHECK(source.copy({size_bytes, 100}, bytes.data()) == 0);
}

TEST_CASE("a file that was truncated ends the copy at its last page") {
  const TemporaryFolder folder;
  const std::string path = write(folder, counted(8 * kPageBytes));
  const MappedSource source(*File::open(system_file_io(), path));
  REQUIRE(::truncate(path.c_str(), static_cast<off_t>(3 * kPageBytes)) == 0);
  std::vector<std::byte> bytes(8 * kPageBytes);
  CHECK(source.copy({0, 8 * kPageBytes}, bytes.data()) <= 3 * kPageBytes);
  CHECK(source.copy({4 * kPageBytes, kPageBytes}, bytes.data()) == 0);
  CHECK(source.copy({0, 3 * kPageBytes}, bytes.data()) == 3 * kPageBytes);
}

TEST_CASE("faults of a mapping are of the part of the file that they touch") {
  const TemporaryFolder folder;
  const auto expected = counted(8 * kPageBytes);
  FaultyFileIo io(system_file_io());
  io.add({.operation = Operation::copy_mapped,
          .path_suffix = "a",
          .from_offset = 5 * kPageBytes,
          .to_offset = 6 * kPageBytes});
  const MappedSource source(*File::open(io, write(folder, expected)));
  std::vector<std::byte> bytes(8 * kPageBytes);
  CHECK(source.copy({5 * kPageBytes + 10, 1}, bytes.data()) == 0);
  CHECK(source.copy({kPageBytes, 6 * kPageBytes}, bytes.data()) == 0);
  CHECK(source.copy({6 * kPageBytes, kPageBytes}, bytes.data()) == kPageBytes);
  CHECK(source.copy({0, 5 * kPageBytes}, bytes.data()) == 5 * kPageBytes);
}

TEST_CASE("an empty file has nothing to copy") {
  const TemporaryFolder folder;
  const MappedSource source(*File::open(system_file_io(), folder.write("a", 0)));
  std::byte byte{};
  CHECK(source.copy({0, 1}, &byte) == 0);
}

TEST_SUITE_END();
