// workload: which files a path stands for, in which order, and how much of them is measured.
#include "workload.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "base/error.h"
#include "options.h"

using namespace shardahead;
using namespace shardahead::bench;

TEST_SUITE_BEGIN("bench_workload");

namespace {

namespace fs = std::filesystem;

using Names = std::vector<std::string>;

class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "shardahead-bench-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  [[nodiscard]] std::string path(const std::string& name) const { return (path_ / name).string(); }
  [[nodiscard]] std::string write(const std::string& name, std::size_t size_bytes) const {
    std::ofstream(path(name)) << std::string(size_bytes, 'x');
    return path(name);
  }

 private:
  fs::path path_;
};

}  // namespace

TEST_CASE("numbers count as numbers, and the order is total") {
  const Names sorted{"",       "a",   "a-1",  "a-2",    "a-2x",
                     "a-002y", "a-9", "a-10", "a-10-2", "a-99999999999999999999",
                     "b"};
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    for (std::size_t j = 0; j < sorted.size(); ++j) {
      CAPTURE(sorted[i]);
      CAPTURE(sorted[j]);
      CHECK(naturally_before(sorted[i], sorted[j]) == (i < j));
    }
  }
  CHECK(naturally_before("a-01", "a-1") != naturally_before("a-1", "a-01"));
}

TEST_CASE("the best kind of shard in a folder wins") {
  CHECK(shards_among({"b-10.safetensors", "b-2.safetensors", "a.bin", ".c.safetensors",
                      "d.json"}) == Names{"b-2.safetensors", "b-10.safetensors"});
  CHECK(shards_among({"b.pt", "a.bin", "config.json"}) == Names{"a.bin", "b.pt"});
  CHECK(shards_among({"b", "a", ".hidden"}) == Names{"a", "b"});
  CHECK(shards_among({".hidden"}).empty());
}

TEST_CASE("folders and files become a list of files") {
  const Folder folder;
  fs::create_directory(folder.path("model"));
  fs::create_directory(folder.path("model/x.safetensors"));
  const std::string two = folder.write("model/a-2.safetensors", 1);
  const std::string ten = folder.write("model/a-10.safetensors", 1);
  const std::string other = folder.write("zoo", 1);
  CHECK(files_of({other, folder.path("model")}) == Names{two, ten, other});
  fs::create_directory(folder.path("empty"));
  CHECK_THROWS_AS(files_of({folder.path("empty")}), UsageError);
  try {
    files_of({folder.path("missing")});
    FAIL("a missing path was taken");
  } catch (const IoException& exception) {
    CHECK(exception.error().errno_value == ENOENT);
    CHECK(exception.error().path == folder.path("missing"));
  }
}

TEST_CASE("the limit cuts at a page, leaves out what lies behind, and counts no file twice") {
  const Folder folder;
  const std::string a = folder.write("a", 10'000);
  const std::string b = folder.write("b", 10'000);
  const std::string c = folder.write("c", 10'000);
  fs::create_symlink(a, folder.path("d"));
  const Names paths{a, b, c, folder.path("d"), folder.write("e", 0)};
  const auto measured = [&](std::uint64_t limit_bytes) {
    const Workload workload = workload_of(system_file_io(), paths, limit_bytes);
    CHECK(workload.total_files == 4);
    CHECK(workload.total_bytes == 30'000);
    std::vector<std::uint64_t> bytes;
    for (const MeasuredFile& file : workload.files) bytes.push_back(file.measured_bytes);
    CHECK(workload.measured_bytes == std::accumulate(bytes.begin(), bytes.end(), std::uint64_t{0}));
    return bytes;
  };
  using Bytes = std::vector<std::uint64_t>;
  CHECK(measured(0) == Bytes{10'000, 10'000, 10'000});
  CHECK(measured(1'000'000) == Bytes{10'000, 10'000, 10'000});
  CHECK(measured(30'000) == Bytes{10'000, 10'000, 10'000});
  CHECK(measured(10'000) == Bytes{10'000});
  CHECK(measured(10'001) == Bytes{10'000, page_bytes()});
  CHECK(measured(1) == Bytes{page_bytes()});
}

TEST_CASE("the plan wants the measured part and no more") {
  Workload workload;
  workload.files = {{"a", 10'000, 10'000}, {"b", 10'000, 4096}};
  workload.measured_bytes = 14'096;
  const Plan plan(planned_files(workload), PlanOptions{});
  std::uint64_t wanted_bytes = 0;
  for (const Block& block : plan.blocks()) wanted_bytes += plan.wanted_bytes(block);
  CHECK(wanted_bytes == workload.measured_bytes);
}
