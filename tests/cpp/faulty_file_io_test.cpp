// faulty_file_io: that the twin is faulty in the way it says.
#include "faulty_file_io.h"

#include <doctest/doctest.h>

#include <thread>

#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("faulty_file_io");

namespace {

struct OpenFile {
  OpenFile() : checkpoint({kMiB, kMiB}), descriptor(checkpoint.io.open("1.shard")) {}
  ~OpenFile() { checkpoint.io.close(descriptor); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  std::int64_t pread(ByteRange range) {
    return checkpoint.io.pread(descriptor, buffer.data(), range);
  }

  SimulatedCheckpoint checkpoint;
  std::vector<std::byte> buffer{kMiB};
  int descriptor;
};

}  // namespace

TEST_CASE("a fault applies to its operation, path and offsets only, and so often") {
  OpenFile file;
  file.checkpoint.io.add({.path_suffix = "1.shard",
                          .from_offset = 1000,
                          .to_offset = 2000,
                          .times = 2,
                          .errno_value = ENOMEM});
  CHECK(file.pread({0, 1000}) == 1000);
  CHECK(file.pread({2000, 10}) == 10);
  CHECK(file.pread({0, 1001}) == -ENOMEM);
  CHECK(file.pread({1999, 1}) == -ENOMEM);
  CHECK(file.pread({1999, 1}) == 1);
  CHECK(file.checkpoint.io.calls(Operation::pread) == 5);

  file.checkpoint.io.add({.path_suffix = "0.shard"});
  CHECK(file.pread({0, 10}) == 10);
}

TEST_CASE("each kind does what it says") {
  OpenFile file;
  FaultyFileIo& io = file.checkpoint.io;
  SUBCASE("fail, before a descriptor exists") {
    FileStatus status;
    io.add({.operation = Operation::open, .errno_value = EMFILE});
    io.add({.operation = Operation::status, .errno_value = EACCES});
    CHECK(io.open("0.shard") == -EMFILE);
    CHECK(io.status("0.shard", status) == -EACCES);
  }
  SUBCASE("short read") {
    io.add({.kind = FaultKind::short_read, .limit_bytes = 5});
    CHECK(file.pread({0, 100}) == 5);
  }
  SUBCASE("end of file") {
    io.add({.kind = FaultKind::end_of_file, .limit_bytes = 50});
    CHECK(file.pread({0, 100}) == 50);
    CHECK(file.pread({50, 1}) == 0);
    CHECK(file.pread({90, 1}) == 0);
  }
  SUBCASE("lost advice") {
    io.add({.operation = Operation::fadvise_willneed, .kind = FaultKind::lose_advice});
    CHECK(io.fadvise_willneed(file.descriptor, {0, kMiB}) == 0);
    CHECK(file.checkpoint.kernel.resident_bytes("1.shard") == 0);
    CHECK(io.readahead(file.descriptor, {0, kMiB}) == 0);
    CHECK(file.checkpoint.kernel.resident_bytes("1.shard") == kMiB);
  }
  SUBCASE("lie") {
    io.add({.operation = Operation::cachestat, .kind = FaultKind::lie});
    CHECK(io.cachestat(file.descriptor, {0, kMiB}) == kMiB / page_bytes());
    CHECK(io.mincore(file.descriptor, {0, kMiB}) == 0);
  }
  SUBCASE("deny") {
    io.add({.operation = Operation::cachestat, .kind = FaultKind::deny});
    CHECK(io.fadvise_willneed(file.descriptor, {0, kMiB}) == 0);
    CHECK(io.cachestat(file.descriptor, {0, kMiB}) == 0);
    CHECK(file.checkpoint.kernel.resident_bytes("1.shard") == kMiB);
  }
}

TEST_CASE("a stalled call goes on when it is released, and none stalls afterwards") {
  OpenFile file;
  FaultyFileIo& io = file.checkpoint.io;
  io.add({.kind = FaultKind::stall});
  std::int64_t count = 0;
  std::thread reader([&] { count = file.pread({0, 100}); });
  const bool stalled = io.wait_until_stalled(1, kHangBound);
  io.release_stalled();
  reader.join();
  CHECK(stalled);
  CHECK(count == 100);
  CHECK(file.pread({0, 7}) == 7);
}

TEST_SUITE_END();
