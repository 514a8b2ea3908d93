// loader_progress: a /proc of files, for what a real one does not show: other devices, files of
// 500 GB, no permission.
#include <doctest/doctest.h>
#include <sys/sysmacros.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "node/file_io.h"
#include "node/loader_progress.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("loader_progress_proc");

namespace {

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
