// held_bytes: what a consumer holds of a mapped file.
#include "engine/held_bytes.h"

#include <doctest/doctest.h>

#include <cerrno>
#include <stdexcept>

#include "base/error.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("held_bytes");

namespace {

struct HeldFixture {
  HeldFixture() { path = folder.write("file", 64 * kKiB); }

  [[nodiscard]] std::shared_ptr<MappedFile> map() const {
    return std::make_shared<MappedFile>(*File::open(system_file_io(), path));
  }

  const TemporaryFolder folder;
  std::string path;
  std::shared_ptr<Consumption> consumption = std::make_shared<Consumption>();
};

}  // namespace

TEST_CASE("bytes are held until they are let go, at their place in consumption order") {
  const HeldFixture fixture;
  const auto mapped = fixture.map();
  auto held = std::make_unique<HeldBytes>(mapped, ByteRange{8192, 100}, fixture.consumption, 5000);
  CHECK(held->memory() == mapped->memory() + 8192);
  CHECK(held->size_bytes() == 100);
  CHECK(fixture.consumption->not_held({5000, 100}).empty());
  CHECK(fixture.consumption->not_held({4999, 102}).size() == 2);
  held.reset();
  CHECK(fixture.consumption->not_held({5000, 100}).size() == 1);
}

TEST_CASE("who holds the last bytes of a file is told so: letting go of them unmaps it") {
  const HeldFixture fixture;
  auto mapped = fixture.map();
  auto first = std::make_unique<HeldBytes>(mapped, ByteRange{0, 1}, fixture.consumption, 0);
  auto last = std::make_unique<HeldBytes>(std::move(mapped), ByteRange{1, 1}, nullptr, 1);
  CHECK_FALSE(last->is_last());
  first.reset();
  CHECK(last->is_last());
}

TEST_CASE("a range that is not in the file cannot be held") {
  const HeldFixture fixture;
  const auto mapped = fixture.map();
  for (const ByteRange range :
       {ByteRange{0, 64 * kKiB}, ByteRange{64 * kKiB, 0}, ByteRange{100, 0}}) {
    require_within(*mapped, range);
  }
  for (const ByteRange range : {ByteRange{0, 64 * kKiB + 1}, ByteRange{64 * kKiB, 1},
                                ByteRange{64 * kKiB + 1, 0}, ByteRange{1, kNoEnd}}) {
    CHECK_THROWS_AS(require_within(*mapped, range), std::invalid_argument);
  }
}

TEST_CASE("what this process owns is not mapped page by page to see whether it can be read") {
  const HeldFixture fixture;
  const FileTable files(system_file_io(), {fixture.path}, 1);
  const auto mapped = fixture.map();
  require_readable(system_file_io(), files, 0, *mapped, {0, 64 * kKiB});
}

namespace {

// As if files were another user's.
class NotOwned final : public FaultyFileIo {
 public:
  using FaultyFileIo::FaultyFileIo;
  int status(const std::string& path, FileStatus& status) noexcept override {
    const int result = FaultyFileIo::status(path, status);
    status.owned_or_writable = false;
    return result;
  }
  int status(int descriptor, FileStatus& status) noexcept override {
    const int result = FaultyFileIo::status(descriptor, status);
    status.owned_or_writable = false;
    return result;
  }
};

}  // namespace

TEST_CASE("of a part only the pages of its runs are mapped to see whether they can be read") {
  const HeldFixture fixture;
  NotOwned io(system_file_io());
  const FileTable files(io, {fixture.path}, 1);
  const auto mapped = std::make_shared<MappedFile>(*File::open(io, fixture.path));
  const std::uint64_t page = page_bytes();
  const ByteRuns runs(10, {{3, 4 * page}});  // the pages 1, 5 and 9
  for (const std::uint64_t gap : {0U, 2U, 3U, 4U, 6U, 8U, 10U}) {
    io.add({.operation = Operation::fault_in,
            .from_offset = gap * page,
            .to_offset = (gap + 1) * page,
            .errno_value = EFAULT});
  }
  const auto look = [&] {
    for (const ByteRange& part : looked_at(page + 50, runs, std::nullopt)) {
      require_readable(io, files, 0, *mapped, part);
    }
  };
  look();
  CHECK(io.calls(Operation::fault_in) == 3);
  io.add({.operation = Operation::fault_in,
          .from_offset = 5 * page,
          .to_offset = 6 * page,
          .errno_value = EFAULT});
  io.add({.from_offset = 5 * page, .to_offset = 6 * page});
  try {
    look();
    FAIL("it is readable");
  } catch (const IoException& exception) {
    CHECK(exception.error().errno_value == EIO);
    CHECK(exception.error().path == fixture.path);
    CHECK(exception.error().offset / page == 5);
  }
}

TEST_CASE("of a part that was brought in but for some of it only the rest is looked at") {
  const std::uint64_t page = page_bytes();
  const ByteRuns runs(page, {{3, 4 * page}});  // the pages 1, 5 and 9
  using Ranges = std::vector<ByteRange>;
  CHECK(looked_at(page, runs, Ranges{}).empty());
  const Ranges expected{{0, page + 10}, {4 * page, 3 * page}};
  CHECK(looked_at(page, runs, expected) == Ranges{{page, 10}, {5 * page, page}});
  CHECK(looked_at(page, ByteRuns(9 * page), expected) == Ranges{{page, 10}, {4 * page, 3 * page}});
}

TEST_SUITE_END();
