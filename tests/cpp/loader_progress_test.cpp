// loader_progress: this process, with real mappings and descriptors.
#include "node/loader_progress.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "node/file_io.h"
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

}  // namespace

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
          io.fault_in_huge_pages(descriptor, {at, kPopulateBytes});
          io.fault_in_huge_pages(descriptor, {at, kFileBytes - at});
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

TEST_CASE("all that is touched of a mapping is marked, wherever it lies") {
  if (!has_pagemap()) return;
  const TemporaryFolder folder;
  const std::vector<std::string> paths = {folder.write("a", kFileBytes),
                                          folder.write("b", kFileBytes)};
  LoaderProgress progress(paths);
  TouchedBytes touched({kFileBytes, kFileBytes});
  {
    const Loader part(paths[1], kPrivateWritable, MAP_PRIVATE, {4 * kMiB, kFileBytes - 4 * kMiB});
    part.touch(3 * kMiB);
    progress.mark_touched(touched);
    CHECK(touched.untouched(1, {7 * kMiB, 1}).empty());
    CHECK(touched.bytes() <= kAroundBytes);
    part.write(0);
    progress.mark_touched(touched);
    CHECK(touched.untouched(1, {4 * kMiB, 1}).empty());
  }
  progress.mark_touched(touched);
  CHECK(touched.untouched(1, {7 * kMiB, 1}).empty());  // unmapped, and not forgotten
  CHECK(touched.ranges(0).empty());
}

TEST_CASE("what a descriptor has read on is marked from where it was") {
  const TemporaryFolder folder;
  const std::string path = folder.write("a", kFileBytes);
  LoaderProgress progress({path});
  TouchedBytes touched({kFileBytes});
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(descriptor >= 0);
  const auto seek_and_look = [&](std::uint64_t offset) {
    ::lseek(descriptor, static_cast<off_t>(offset), SEEK_SET);
    progress.mark_touched(touched);
    return touched.ranges(0);
  };
  using Ranges = std::vector<ByteRange>;
  // To the directory of a zip archive and back.
  CHECK(seek_and_look(kFileBytes).empty());
  CHECK(seek_and_look(4 * kMiB).empty());
  CHECK(seek_and_look(5 * kMiB) == Ranges{{4 * kMiB, kMiB}});
  CHECK(seek_and_look(5 * kMiB) == Ranges{{4 * kMiB, kMiB}});
  CHECK(seek_and_look(2 * kMiB) == Ranges{{4 * kMiB, kMiB}});
  CHECK(seek_and_look(3 * kMiB) == Ranges{{2 * kMiB, kMiB}, {4 * kMiB, kMiB}});
  ::close(descriptor);
  progress.mark_touched(touched);
  CHECK(touched.bytes() == 2 * kMiB);
}

TEST_SUITE_END();
