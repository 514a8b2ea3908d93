// mapped_file: real files and pages.
#include "node/mapped_file.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "faulty_file_io.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("mapped_file");

namespace {

constexpr std::uint64_t kPages = 8;
const std::uint64_t kPageBytes = page_bytes();

// A file of zeros that ends in the middle of a page, each page of it written to, in private.
struct Written {
  Written()
      : path(folder.write("a", kPages * kPageBytes - 100)),
        mapped(*File::open(system_file_io(), path)) {
    for (std::uint64_t page = 0; page < kPages; ++page) {
      mapped.memory()[page * kPageBytes] = std::byte{1};
    }
  }

  // Which pages have what was written to them.
  [[nodiscard]] std::string kept() const {
    std::string pages;
    for (std::uint64_t page = 0; page < kPages; ++page) {
      pages += mapped.memory()[page * kPageBytes] == std::byte{1} ? 'x' : '.';
    }
    return pages;
  }

  TemporaryFolder folder;
  std::string path;
  MappedFile mapped;
};

}  // namespace

TEST_CASE("only whole pages are given up, and the last one of the file") {
  const Written written;
  CHECK(written.kept() == "xxxxxxxx");
  written.mapped.give_up({1, kPageBytes});
  written.mapped.give_up({kPageBytes, kPageBytes - 1});
  written.mapped.give_up({kPageBytes, 0});
  CHECK(written.kept() == "xxxxxxxx");
  written.mapped.give_up({kPageBytes - 1, 2 * kPageBytes});
  CHECK(written.kept() == "x.xxxxxx");
  written.mapped.give_up({6 * kPageBytes, 2 * kPageBytes - 100});
  CHECK(written.kept() == "x.xxxx..");
}

TEST_CASE("what is written does not reach the file") {
  const Written written;
  const MappedFile again(*File::open(system_file_io(), written.path));
  CHECK(again.memory()[0] == std::byte{0});
}

TEST_CASE("a page that cannot be read is an error, not a signal") {
  const Written written;
  CHECK(written.mapped.bring_in({0, written.mapped.size_bytes()}) == 0);
  CHECK(written.mapped.bring_in({0, 0}) == 0);
  const MappedFile mapped(*File::open(system_file_io(), written.path));
  REQUIRE(::truncate(written.path.c_str(), 2 * static_cast<off_t>(kPageBytes)) == 0);
  CHECK(mapped.bring_in({0, 2 * kPageBytes}) == 0);
  CHECK(mapped.bring_in({kPageBytes, 2 * kPageBytes}) == -EFAULT);
}

TEST_CASE("what cannot be mapped is an error with its path") {
  const Written written;
  FaultyFileIo io(system_file_io());
  io.add({.operation = Operation::map, .errno_value = ENODEV});
  try {
    const MappedFile mapped(*File::open(io, written.path));
    FAIL("it was mapped");
  } catch (const IoException& exception) {
    CHECK(exception.error().errno_value == ENODEV);
    CHECK(exception.error().operation == "mmap");
    CHECK(exception.error().path == written.path);
  }
}

TEST_CASE(
    "the last to let go of a mapping does not unmap it itself, and gives up its pages first") {
  class LaterRuntime final : public Runtime {
   public:
    Time now() noexcept override { return {}; }
    void wait_for_ring(const DoorbellWord&, std::uint32_t,
                       std::chrono::nanoseconds) noexcept override {}
    void start_thread(const std::string&, std::function<void()> body) override {
      later.push_back(std::move(body));
    }
    std::vector<std::function<void()>> later;
  } runtime;
  const Written written;
  FaultyFileIo io(system_file_io());
  auto mapped = std::make_shared<MappedFile>(*File::open(io, written.path), runtime);
  MappedFile::let_go(std::shared_ptr(mapped));
  CHECK(runtime.later.empty());
  MappedFile::let_go(std::move(mapped));
  CHECK(io.calls(Operation::give_up) == 1);
  CHECK(io.calls(Operation::unmap) == 0);
  REQUIRE(runtime.later.size() == 1);
  runtime.later.front()();
  CHECK(io.calls(Operation::unmap) == 1);
  MappedFile::let_go(nullptr);
}

TEST_CASE("a file of nothing has no memory") {
  const TemporaryFolder folder;
  const MappedFile mapped(*File::open(system_file_io(), folder.write("a", 0)));
  CHECK(mapped.size_bytes() == 0);
  mapped.give_up({0, 0});
}

TEST_SUITE_END();
