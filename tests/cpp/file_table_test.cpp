// file_table: with real files where the kind of file matters, simulated ones where the calls do.
#include "node/file_table.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <thread>

#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("file_table");

namespace {

IoError error_of(const std::vector<std::string>& paths) {
  try {
    const FileTable table(system_file_io(), paths, 8);
  } catch (const IoException& exception) {
    return exception.error();
  }
  return {};
}

}  // namespace

TEST_CASE("a missing file is named, with the errno") {
  const TemporaryFolder folder;
  const IoError error = error_of({folder.write("a", 10), folder.path("missing")});
  CHECK(error.errno_value == ENOENT);
  CHECK(error.operation == "stat");
  CHECK(error.path == folder.path("missing"));
}

TEST_CASE("a folder, a FIFO and a device are refused, and nothing waits for a writer") {
  const TemporaryFolder folder;
  const std::string fifo = folder.path("fifo");
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  CHECK(error_of({folder.path("")}).errno_value == EISDIR);
  CHECK(error_of({fifo}).errno_value == EINVAL);
  CHECK(error_of({fifo}).message().find("FIFO") != std::string::npos);
  CHECK(error_of({"/dev/null"}).message().find("character device") != std::string::npos);
}

TEST_CASE("each path is an entry, also where several lead to one file") {
  const TemporaryFolder folder;
  const std::string a = folder.write("a", 10);
  const std::string b = folder.write("b", 20);
  std::filesystem::create_hard_link(a, folder.path("hard"));
  std::filesystem::create_symlink(b, folder.path("soft"));
  const FileTable table(system_file_io(), {a, folder.path("soft"), folder.path("hard"), b, a}, 8);
  REQUIRE(table.size() == 5);
  CHECK(table.path(0) == a);
  CHECK(table.size_bytes(0) == 10);
  CHECK(table.path(1) == folder.path("soft"));
  CHECK(table.size_bytes(1) == 20);
  CHECK(table.real_path(1) == std::filesystem::canonical(b));
  CHECK(table.size_bytes(4) == 10);
}

TEST_CASE("many files are opened side by side, and told of in order") {
  const TemporaryFolder folder;
  std::vector<std::string> paths;
  for (int i = 0; i < 100; ++i) {
    paths.push_back(folder.write(std::to_string(i), 1 + static_cast<std::uint64_t>(i)));
  }
  FaultyFileIo io(system_file_io());
  FileTable table(io, paths, 8, 16);
  REQUIRE(table.size() == 100);
  for (std::size_t i = 0; i < table.size(); ++i) {
    CHECK(table.path(i) == paths[i]);
    CHECK(table.size_bytes(i) == 1 + i);
    CHECK((table.opened(i) != nullptr) == (i < 8));
  }
  CHECK(io.calls(Operation::open) == 100);
  CHECK(io.calls(Operation::close) == 92);
}

TEST_CASE("side by side, too, the first file in order that cannot be opened is named") {
  SimulatedCheckpoint checkpoint(std::vector<std::uint64_t>(40, 10));
  std::vector<std::string> paths;
  for (std::size_t i = 0; i < 40; ++i) paths.push_back(SimulatedCheckpoint::path(i));
  for (const char* bad : {"31.shard", "17.shard"}) {
    checkpoint.io.add({.operation = Operation::open, .path_suffix = bad, .errno_value = EACCES});
  }
  try {
    const FileTable table(checkpoint.io, paths, 8, 8);
    FAIL("it was opened");
  } catch (const IoException& exception) {
    CHECK(exception.error().path == paths[17]);
    CHECK(exception.error().errno_value == EACCES);
  }
  CHECK(checkpoint.kernel.open_descriptors() == 0);
  checkpoint.io.clear_faults();
  // What failed for the moment is tried again.
  checkpoint.io.add(
      {.operation = Operation::open, .path_suffix = "17.shard", .times = 1, .errno_value = EMFILE});
  CHECK(FileTable(checkpoint.io, paths, 8, 8).size() == 40);
}

TEST_CASE("a table of no files is one") { CHECK(FileTable(system_file_io(), {}, 8).size() == 0); }

TEST_CASE("an open that fails leaves no descriptor behind") {
  SimulatedCheckpoint checkpoint({10, 10, 10});
  checkpoint.io.add(
      {.operation = Operation::open, .path_suffix = "2.shard", .errno_value = EMFILE});
  CHECK_THROWS_AS(checkpoint.open(), IoException);
  CHECK(checkpoint.kernel.open_descriptors() == 0);
  checkpoint.io.clear_faults();
  checkpoint.io.add({.operation = Operation::status, .times = 0});
  CHECK_NOTHROW(checkpoint.open());
}

TEST_CASE("no more files stay open than allowed; the others are opened again") {
  SimulatedCheckpoint checkpoint(std::vector<std::uint64_t>(10, 100));
  checkpoint.open({}, 3);
  CHECK(checkpoint.kernel.open_descriptors() == 3);
  for (std::size_t file = 0; file < 10; ++file) {
    const auto opened = checkpoint.files->acquire(file);
    CHECK(opened->path() == SimulatedCheckpoint::path(file));
    CHECK(checkpoint.kernel.open_descriptors() <= 4);  // one more while this one is taken up
  }
  CHECK(checkpoint.kernel.open_descriptors() == 3);
  CHECK(checkpoint.kernel.calls(Operation::open) == 17);  // the first three were still open
}

TEST_CASE("a file that is in use is not opened twice") {
  SimulatedCheckpoint checkpoint({100, 100, 100});
  checkpoint.open({}, 1);
  const auto first = checkpoint.files->acquire(0);
  checkpoint.files->acquire(1);
  checkpoint.files->acquire(2);
  const auto opens = checkpoint.kernel.calls(Operation::open);
  CHECK(checkpoint.files->acquire(0) == first);
  CHECK(checkpoint.kernel.calls(Operation::open) == opens);
}

TEST_CASE("a renewed file is opened anew, while who has it keeps it, and not for ever") {
  SimulatedCheckpoint checkpoint({100});
  checkpoint.open();
  const auto before = checkpoint.files->acquire(0);
  checkpoint.files->renew(0, *before);
  checkpoint.files->renew(0, *before);
  const auto after = checkpoint.files->acquire(0);
  CHECK(after->descriptor() != before->descriptor());
  CHECK(checkpoint.files->acquire(0) == after);
  CHECK(checkpoint.kernel.open_descriptors() == 2);
  for (int time = 0; time < 10; ++time) {
    checkpoint.files->renew(0, *checkpoint.files->acquire(0));
    checkpoint.files->acquire(0);
  }
  CHECK(checkpoint.io.calls(Operation::open) == 1 + 3);
}

TEST_CASE("a file that was replaced by a shorter one while closed is refused") {
  SimulatedCheckpoint checkpoint({100, 100});
  checkpoint.open({}, 1);
  checkpoint.kernel.truncate("1.shard", 60);
  try {
    checkpoint.files->acquire(1);
    FAIL("acquired");
  } catch (const IoException& exception) {
    CHECK(exception.error().errno_value == ENODATA);
    CHECK(exception.error().path == "1.shard");
    CHECK(exception.error().message().find("100") != std::string::npos);
  }
  CHECK(checkpoint.kernel.open_descriptors() == 1);
}

TEST_CASE("a file that was touched while closed is the same, whatever its time says") {
  const TemporaryFolder folder;
  const std::string first = folder.write("a", 100);
  const std::string second = folder.write("b", 100);
  FileTable table(system_file_io(), {first, second}, 1);
  CHECK(table.opened(0));
  CHECK_FALSE(table.opened(1));
  CHECK(table.acquire(1));
  for (const std::int64_t seconds : {std::int64_t{1}, std::int64_t{13'000'000'000}}) {
    const std::array<timespec, 2> times{timespec{0, UTIME_OMIT}, timespec{seconds, 0}};
    REQUIRE(::utimensat(AT_FDCWD, first.c_str(), times.data(), 0) == 0);
    CHECK(table.acquire(0));
    CHECK(table.acquire(1));
  }
}

TEST_CASE("a file that was replaced while closed, by one of its size and time, is refused") {
  const TemporaryFolder folder;
  const std::string first = folder.write("a", 100);
  FileTable table(system_file_io(), {first, folder.write("b", 100)}, 1);
  CHECK(table.acquire(1));
  const std::string other = folder.write("c", 100);
  const std::array<timespec, 2> times{timespec{1, 0}, timespec{1, 0}};
  REQUIRE(::utimensat(AT_FDCWD, other.c_str(), times.data(), 0) == 0);
  std::filesystem::rename(other, first);
  try {
    table.acquire(0);
    FAIL("acquired");
  } catch (const IoException& exception) {
    CHECK(exception.error().errno_value == ESTALE);
    CHECK(exception.error().path == first);
  }
}

TEST_CASE("a close that waits for its server does not hold up the open files") {
  SimulatedCheckpoint checkpoint({100, 100});
  checkpoint.open({}, 1);
  checkpoint.io.add({.operation = Operation::close, .kind = FaultKind::stall});
  std::thread closer([&] { checkpoint.files->acquire(1); });  // closes file 0
  REQUIRE(checkpoint.io.wait_until_stalled(1, kHangBound));
  CHECK(checkpoint.files->acquire(1)->path() == "1.shard");  // would wait for ever
  checkpoint.io.release_stalled();
  closer.join();
}

TEST_CASE("many threads share a table") {
  SimulatedCheckpoint checkpoint(std::vector<std::uint64_t>(12, 100));
  checkpoint.open({}, 2);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (std::size_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (std::size_t round = 0; round < 200; ++round) {
        const std::size_t file = (round * (thread + 1)) % 12;
        if (checkpoint.files->acquire(file)->path() != SimulatedCheckpoint::path(file)) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  checkpoint.files.reset();
  CHECK(checkpoint.kernel.open_descriptors() == 0);
}

TEST_CASE("the limit on open files is sensible") {
  CHECK(default_max_open_files() >= 1);
  CHECK(default_max_open_files() <= 256);
}

TEST_CASE("a file that was replaced since is not populated: the bytes would be another's") {
  const TemporaryFolder folder;
  const std::string path = folder.write("a", 100);
  const auto file = File::open(system_file_io(), path);
  std::filesystem::rename(folder.write("b", 100), path);
  CHECK(file->fault_descriptor() == -ESTALE);
}

TEST_SUITE_END();
