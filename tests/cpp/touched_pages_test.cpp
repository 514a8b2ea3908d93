// touched_pages: what the kernel says was used of mappings of this process.
#include "engine/touched_pages.h"

#include <doctest/doctest.h>

#include "engine/held_bytes.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("touched_pages");

namespace {

constexpr std::uint64_t kFileBytes = 16 * kMiB;
// What a fault may map besides the page that was touched, where the page cache has huge pages.
constexpr std::uint64_t kAroundBytes = kHugePageBytes;

struct TouchedFixture {
  TouchedFixture() : path(folder.write("file", kFileBytes)) {}

  [[nodiscard]] std::unique_ptr<HeldBytes> hold(ByteRange range) const {
    return std::make_unique<HeldBytes>(mapped, range, nullptr, 0, touched, 0);
  }
  static void use(const HeldBytes& held, std::uint64_t offset) {
    static_cast<void>(*(reinterpret_cast<volatile const char*>(held.memory()) + offset));
  }
  [[nodiscard]] bool has(std::uint64_t offset) const {
    return touched->bytes().untouched(0, {offset, 1}).empty();
  }

  const TemporaryFolder folder;
  std::string path;
  std::shared_ptr<MappedFile> mapped =
      std::make_shared<MappedFile>(*File::open(system_file_io(), path));
  std::shared_ptr<TouchedPages> touched =
      std::make_shared<TouchedPages>(std::vector<std::uint64_t>{kFileBytes});
};

bool tells(const TouchedFixture& fixture) {
  if (!fixture.touched->can_look()) MESSAGE("skipped: no /proc/self/pagemap here");
  return fixture.touched->can_look();
}

}  // namespace

TEST_CASE("what was used is seen when it is let go") {
  const TouchedFixture fixture;
  if (!tells(fixture)) return;
  auto held = fixture.hold({0, 8 * kMiB});
  CHECK(fixture.touched->held() == 1);
  TouchedFixture::use(*held, 4 * kMiB);
  CHECK(fixture.touched->bytes().bytes() == 0);
  held.reset();
  CHECK(fixture.touched->held() == 0);
  CHECK(fixture.has(4 * kMiB));
  CHECK(fixture.touched->bytes().bytes() <= kAroundBytes);
}

TEST_CASE("what is still held is seen by looking, and what was written as well") {
  const TouchedFixture fixture;
  if (!tells(fixture)) return;
  const auto held = fixture.hold({4 * kMiB, 12 * kMiB});
  *(held->memory() + 8 * kMiB) = std::byte{1};
  fixture.touched->look();
  CHECK(fixture.has(12 * kMiB));
  CHECK_FALSE(fixture.has(4 * kMiB));
  CHECK(fixture.touched->held() == 1);
}

TEST_CASE("what is mapped no more is not looked at") {
  TouchedFixture fixture;
  auto held = fixture.hold({0, kMiB});
  fixture.mapped.reset();
  held.reset();
  fixture.touched->look();
  CHECK(fixture.touched->bytes().bytes() == 0);
}

TEST_CASE("to see whether another user's file can be read touches nothing of the consumer's") {
  const TouchedFixture fixture;
  if (!tells(fixture)) return;
  FileTable files(system_file_io(), {fixture.path}, 1);
  const auto held = fixture.hold({0, kFileBytes});
  require_readable_untouched(files, 0, {0, kFileBytes});
  fixture.touched->look();
  CHECK(fixture.touched->bytes().bytes() == 0);
}

TEST_CASE("without a pagemap nothing is seen") {
  const TemporaryFolder folder;
  TouchedPages touched({kFileBytes}, folder.path("nothing"));
  CHECK_FALSE(touched.can_look());
  touched.look();
  CHECK(touched.bytes().bytes() == 0);
}

TEST_SUITE_END();
