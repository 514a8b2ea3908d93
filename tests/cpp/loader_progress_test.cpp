// loader_progress: the parsers, this process with real mappings and descriptors, and a /proc of
// files for what a real one does not show: other devices, files of 500 GB, no permission.
#include "loader_progress.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <thread>

#include "file_io.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("loader_progress");

namespace {

constexpr std::uint64_t kFileBytes = 8 * kMiB + 100;
// What a fault may map besides the page that was touched, where the page cache has huge pages.
constexpr std::uint64_t kAroundBytes = kHugePageBytes;

// A file mapped as some loader would, and touched page by page.
class Loader {
 public:
  Loader(const std::string& path, int protection, int flags, ByteRange range = {0, kFileBytes})
      : length_(range.length) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    mapped_ =
        ::mmap(nullptr, length_, protection, flags, descriptor, static_cast<off_t>(range.offset));
    ::close(descriptor);
    REQUIRE(mapped_ != MAP_FAILED);
  }
  ~Loader() { ::munmap(mapped_, length_); }
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  void touch(std::uint64_t offset) const {
    static_cast<void>(*(static_cast<volatile const char*>(mapped_) + offset));
  }
  void touch_until(std::uint64_t end) const {
    for (std::uint64_t at = 0; at < end; at += page_bytes()) touch(at);
  }
  void write(std::uint64_t offset) const { *(static_cast<volatile char*>(mapped_) + offset) = 1; }

 private:
  void* mapped_ = MAP_FAILED;
  std::uint64_t length_;
};

constexpr int kPrivateWritable = PROT_READ | PROT_WRITE;

bool has_pagemap() {
  const int descriptor = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (descriptor >= 0) ::close(descriptor);
  if (descriptor < 0) MESSAGE("skipped: this system does not show /proc/self/pagemap");
  return descriptor >= 0;
}

void check_around(std::uint64_t found, std::uint64_t touched) {
  CHECK(found >= touched);
  CHECK(found <= std::min(align_up(touched, kAroundBytes), kFileBytes));
}

// A folder that stands for /, with one file of any size and one mapping of it.
class FakeProc {
 public:
  static constexpr std::uint64_t kBegin = 0x7f0000000000;

  explicit FakeProc(std::uint64_t size_bytes)
      : path(folder_.path("a")), root(folder_.path("root")) {
    std::ofstream(path).close();
    std::filesystem::resize_file(path, size_bytes);
    std::filesystem::create_directories(root + "/proc/self");
    FileStatus status;
    REQUIRE(system_file_io().status(path, status) == 0);
    const std::uint64_t end = kBegin + align_up(size_bytes, page_bytes());
    std::array<char, 200> line{};
    std::snprintf(
        line.data(), line.size(), "%llx-%llx rw-p 00000000 %02x:%02x %llu   /a b (deleted)\n",
        static_cast<unsigned long long>(kBegin), static_cast<unsigned long long>(end),
        major(status.device), minor(status.device), static_cast<unsigned long long>(status.inode));
    write("maps", line.data());
    write("pagemap", "");
    std::filesystem::resize_file(root + "/proc/self/pagemap",
                                 (kBegin >> 9U) + (size_bytes >> 9U) + 8);
  }

  void write(const char* name, const std::string& text) const {
    std::ofstream(root + "/proc/self/" + name) << text;
  }
  void touch(ByteRange range) const {
    std::fstream file(root + "/proc/self/pagemap", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>((kBegin + range.offset) / page_bytes() * 8));
    const std::uint64_t entry = std::uint64_t{1} << 63U;
    for (std::uint64_t at = 0; at < range.length; at += page_bytes()) {
      file.write(reinterpret_cast<const char*>(&entry), sizeof entry);
    }
  }

 private:
  TemporaryFolder folder_;

 public:
  std::string path;
  std::string root;
};

}  // namespace

TEST_CASE("a line of maps") {
  const auto line = parse_maps_line(
      "7f8c2d800000-7f8c2e801000 rw-p 00001000 fe:1f 2154558                    /tmp/a b\\012c");
  REQUIRE(line);
  CHECK(*line == MapsLine{.begin = 0x7f8c2d800000,
                          .end = 0x7f8c2e801000,
                          .offset = 0x1000,
                          .device = makedev(0xfe, 0x1f),
                          .inode = 2154558,
                          .readable = true,
                          .writable = true});
  const auto shared = parse_maps_line("00400000-00401000 r-xs 00000000 103:00002 7 /a (deleted)");
  REQUIRE(shared);
  CHECK(shared->shared);
  CHECK(shared->executable);
  CHECK_FALSE(shared->writable);
  CHECK(shared->device == makedev(0x103, 2));
  const auto anonymous = parse_maps_line("7ffd1000-7ffd2000 rw-p 00000000 00:00 0 ");
  REQUIRE(anonymous);
  CHECK(anonymous->inode == 0);
  CHECK(parse_maps_line("7ffd1000-7ffd2000 rw-p 00000000 00:00 0"));
  CHECK(parse_maps_line("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]"));
}

TEST_CASE("what is no line of maps") {
  for (const char* text :
       {"", "\n", "nonsense", "7ffd1000", "7ffd1000-", "7ffd1000-7ffd2000", "7ffd1000-7ffd2000 ",
        "7ffd2000-7ffd1000 rw-p 00000000 00:00 0", "7ffd1000-7ffd2000 rw-p",
        "7ffd1000-7ffd2000 rw-p ", "7ffd1000-7ffd2000 rw 00000000 00:00 0",
        "7ffd1000-7ffd2000 rw-p x 00:00 0", "7ffd1000-7ffd2000 rw-p 00000000 0000 0",
        "7ffd1000-7ffd2000 rw-p 00000000 00:00", "7ffd1000-7ffd2000 rw-p 00000000 00:00 ",
        "7ffd1000-7ffd2000 rw-p 00000000 00:00 12x", "g-h rw-p 00000000 00:00 0",
        "1ffffffffffffffff-2ffffffffffffffff rw-p 00000000 00:00 0"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_maps_line(text));
  }
}

TEST_CASE("the offset of a descriptor") {
  CHECK(parse_fdinfo_position("pos:\t4096\nflags:\t02100000\nmnt_id:\t28\nino:\t7\n") == 4096);
  CHECK(parse_fdinfo_position("flags:\t0\npos:\t0\n") == 0);
  for (const char* text : {"", "pos:\n", "pos:\t-1\n", "position:\t5\n", "flags:\t02\n"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_fdinfo_position(text));
  }
}

TEST_CASE("a private writable mapping is followed, as it is read and as it is written") {
  if (!has_pagemap()) return;
  const TemporaryFolder folder;
  const std::string path = folder.write("a", kFileBytes);
  LoaderProgress progress({path});
  CHECK(progress.look(kMiB)[0] == LoaderPosition{0, false});
  {
    const Loader loader(path, kPrivateWritable, MAP_PRIVATE);
    CHECK(progress.look(kMiB)[0] == LoaderPosition{0, true});
    for (const std::uint64_t end : {kMiB, kMiB + 4096, 3 * kMiB, 7 * kMiB}) {
      loader.touch_until(end);
      check_around(progress.look(kMiB)[0].end_bytes, end);
    }
    loader.write(3 * kMiB);
    check_around(progress.look(kMiB)[0].end_bytes, 7 * kMiB);
    loader.touch(kFileBytes - 1);
    CHECK(progress.look(kMiB)[0] == LoaderPosition{kFileBytes, true});
  }
  CHECK(progress.look(kMiB)[0] == LoaderPosition{kFileBytes, false});
}

TEST_CASE("shared read-only mappings of several files, and of a part of one") {
  if (!has_pagemap()) return;
  const TemporaryFolder folder;
  const std::vector<std::string> paths = {folder.write("a", kFileBytes),
                                          folder.write("b c", kFileBytes),
                                          folder.write("d\ne", kFileBytes), folder.write("f", 0)};
  LoaderProgress progress(paths);
  const Loader b(paths[1], PROT_READ, MAP_SHARED);
  const Loader part(paths[2], PROT_READ, MAP_SHARED, {4 * kMiB, kMiB});
  b.touch_until(2 * kMiB);
  part.touch(0);
  auto positions = progress.look(kMiB);
  CHECK(positions[0] == LoaderPosition{0, false});
  check_around(positions[1].end_bytes, 2 * kMiB);
  check_around(positions[2].end_bytes, 4 * kMiB + 4096);
  CHECK((positions[1].mapped && positions[2].mapped));
  CHECK(positions[3] == LoaderPosition{0, false});
  // Another mapping of the same file, further behind, takes nothing back.
  const Loader again(paths[1], PROT_READ, MAP_PRIVATE);
  again.touch(0);
  CHECK(progress.look(kMiB)[1] == positions[1]);
}

TEST_CASE("a file given twice, and under another name, has one position") {
  if (!has_pagemap()) return;
  const TemporaryFolder folder;
  const std::string path = folder.write("a", kFileBytes);
  std::filesystem::create_symlink(path, folder.path("link"));
  LoaderProgress progress({folder.path("link"), path, folder.path("missing"), folder.path("")});
  const Loader loader(path, PROT_READ, MAP_SHARED);
  loader.touch_until(kMiB);
  const auto& positions = progress.look(kMiB);
  check_around(positions[0].end_bytes, kMiB);
  CHECK(positions[0] == positions[1]);
  CHECK(positions[2] == LoaderPosition{0, false});
  CHECK(positions[3] == LoaderPosition{0, false});
}

TEST_CASE("more files than are mapped at once while their keys are learnt") {
  if (!has_pagemap()) return;
  const TemporaryFolder folder;
  std::vector<std::string> paths;
  paths.reserve(300);
  for (int i = 0; i < 300; ++i) paths.push_back(folder.write(std::to_string(i), 5 * kMiB / 1000));
  LoaderProgress progress(paths);
  const Loader first(paths.front(), PROT_READ, MAP_SHARED, {0, 4096});
  const Loader last(paths.back(), PROT_READ, MAP_SHARED, {0, 4096});
  last.touch(0);
  const auto& positions = progress.look(kMiB);
  CHECK(positions.front() == LoaderPosition{0, true});
  CHECK(positions.back() == LoaderPosition{4096, true});
  CHECK_FALSE(positions[150].mapped);
}

TEST_CASE("a descriptor is followed by its offset") {
  const TemporaryFolder folder;
  const std::string path = folder.write("a", kFileBytes);
  LoaderProgress progress({path});
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  std::vector<char> buffer(kMiB / 2);
  for (std::uint64_t done = kMiB / 2; done <= 2 * kMiB; done += kMiB / 2) {
    REQUIRE(::read(descriptor, buffer.data(), buffer.size()) ==
            static_cast<ssize_t>(buffer.size()));
    CHECK(progress.look(kMiB)[0] == LoaderPosition{done, false});
  }
  ::lseek(descriptor, 0, SEEK_SET);
  CHECK(progress.look(kMiB)[0].end_bytes == 2 * kMiB);
  ::close(descriptor);
  CHECK(progress.look(kMiB)[0].end_bytes == 2 * kMiB);
}

TEST_CASE("a descriptor that jumps is believed once it stays") {
  const TemporaryFolder folder;
  const std::string path = folder.write("a", kFileBytes);
  LoaderProgress progress({path});
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(descriptor >= 0);
  const auto seek_and_look = [&](std::uint64_t offset) {
    ::lseek(descriptor, static_cast<off_t>(offset), SEEK_SET);
    return progress.look(kMiB)[0].end_bytes;
  };
  // To the directory of a zip archive and back, however long that takes.
  CHECK(seek_and_look(kFileBytes) == 0);
  CHECK(seek_and_look(kFileBytes) == 0);
  CHECK(seek_and_look(4096) == 4096);
  // One long read, then the next.
  CHECK(seek_and_look(4 * kMiB) == 4096);
  CHECK(seek_and_look(5 * kMiB) == 5 * kMiB);
  // There and back.
  CHECK(seek_and_look(7 * kMiB) == 5 * kMiB);
  CHECK(seek_and_look(5 * kMiB) == 5 * kMiB);
  CHECK(seek_and_look(7 * kMiB) == 5 * kMiB);
  // The last tensor ends where the file does.
  CHECK(seek_and_look(kFileBytes) == kFileBytes);
  ::close(descriptor);
}

TEST_CASE("what the core does with the files does not count") {
  const TemporaryFolder folder;
  const std::string path = folder.write("a", kFileBytes);
  LoaderProgress progress({path});
  FileIo& io = system_file_io();
  const int descriptor = io.open(path);
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  threads.reserve(3);
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      std::vector<std::byte> buffer(kMiB);
      std::uint64_t done = 0;
      while (!stop) {
        for (const std::uint64_t at : {0 * kMiB, 2 * kMiB, 4 * kMiB, 6 * kMiB + 8192}) {
          io.populate(descriptor, {at, kPopulateBytes});
          io.populate(descriptor, {at, kFileBytes - at});
          io.mincore(descriptor, {at, kFileBytes - at});
          pread_full(io, descriptor, buffer.data(), {at, kMiB}, done);
        }
      }
    });
  }
  std::size_t counted = 0;
  for (int i = 0; i < 2000; ++i) {
    LoaderProgress another({path});  // maps a page of the file, too
    counted += progress.look(kMiB)[0] == LoaderPosition{0, false} ? 0U : 1U;
    counted += another.look(kMiB)[0] == LoaderPosition{0, false} ? 0U : 1U;
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(counted == 0);
  io.close(descriptor);
}

TEST_CASE("addresses that become another file's do not count for the one they were of") {
  if (!has_pagemap()) return;
  const TemporaryFolder folder;
  const std::string other = folder.write("other", kFileBytes);
  std::vector<std::string> paths;
  for (int i = 0; i < 500; ++i) {
    paths.push_back(folder.write(std::to_string(i), 0));
    std::filesystem::resize_file(paths.back(), kFileBytes);
  }
  LoaderProgress progress(paths);
  std::atomic<bool> done = false;
  std::thread thread([&] {
    for (const std::string& path : paths) {
      Loader(path, kPrivateWritable, MAP_PRIVATE).touch(0);
      Loader(other, kPrivateWritable, MAP_PRIVATE).touch_until(kFileBytes);
    }
    done = true;
  });
  std::vector<LoaderPosition> last(paths.size());
  std::size_t went_back = 0;
  while (!done) {
    const auto& now = progress.look(kFileBytes);
    for (std::size_t i = 0; i < last.size(); ++i) went_back += now[i].end_bytes < last[i].end_bytes;
    last = now;
  }
  thread.join();
  CHECK(went_back == 0);
  for (const LoaderPosition& position : last) CHECK(position.end_bytes <= kAroundBytes);
}

TEST_CASE("only the mappings of populate have their form") {
  const MapsLine ours{.begin = 0x10000,
                      .end = 0x10000 + kPopulateMappedBytes,
                      .offset = 3 * kHugePageBytes,
                      .readable = true,
                      .shared = true};
  CHECK(is_own_mapping(ours));
  const auto differs = [&](auto&& change) {
    MapsLine line = ours;
    change(line);
    return !is_own_mapping(line);
  };
  CHECK(differs([](MapsLine& line) { line.end -= 4096; }));
  CHECK(differs([](MapsLine& line) { line.end += 4096; }));
  CHECK(differs([](MapsLine& line) { line.offset += 4096; }));
  CHECK(differs([](MapsLine& line) { line.shared = false; }));
  CHECK(differs([](MapsLine& line) { line.writable = true; }));
}

TEST_CASE("a scan ends where enough is untouched, and goes on from where it was") {
  if (page_bytes() != 4096) return;
  const FakeProc proc(kGiB);
  LoaderProgress progress({proc.path}, proc.root);
  proc.touch({0, 4096});
  proc.touch({20 * kMiB, 4096});
  CHECK(progress.look(kMiB)[0] == LoaderPosition{4096, true});
  CHECK(progress.look(20 * kMiB)[0].end_bytes == 20 * kMiB + 4096);
  // Each gap by itself is short enough.
  for (std::uint64_t at = 21 * kMiB; at < 200 * kMiB; at += kMiB) proc.touch({at, 4096});
  CHECK(progress.look(kMiB)[0].end_bytes == 199 * kMiB + 4096);
}

TEST_CASE("in 500 GB, a reader that has jumped is found by a probe") {
  if (page_bytes() != 4096) return;
  const FakeProc proc(500 * kGiB);
  LoaderProgress progress({proc.path}, proc.root);
  proc.touch({300 * kGiB, 16 * kGiB});
  CHECK(progress.look(kMiB)[0].end_bytes == 316 * kGiB);
  CHECK(progress.look(kMiB)[0].end_bytes == 316 * kGiB);
  // Too little for one look.
  proc.touch({400 * kGiB, 2 * kGiB});
  int looks = 0;
  while (progress.look(kMiB)[0].end_bytes != 402 * kGiB && looks < 100) ++looks;
  CHECK(looks < 100);
}

TEST_CASE("without pagemap it is known what is mapped; without /proc nothing is") {
  const FakeProc proc(kMiB);
  std::filesystem::remove(proc.root + "/proc/self/pagemap");
  LoaderProgress progress({proc.path}, proc.root);
  CHECK(progress.look(kMiB)[0] == LoaderPosition{0, true});
  LoaderProgress without({proc.path}, proc.root + "/nothing");
  CHECK(without.look(kMiB)[0] == LoaderPosition{0, false});
  CHECK(LoaderProgress({}).look(kMiB).empty());
}

TEST_SUITE_END();
