// stripe: layouts as Lustre's client gives them, written byte by byte from its public header;
// layouts that are cut short or lie; and the block size that follows. Not tested on a real Lustre.
#include "node/stripe.h"

#include <doctest/doctest.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <string_view>
#include <vector>

#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

namespace {

// What "lustre.lov" of any file holds, where it is not empty.
std::vector<std::byte> recorded_layout;

}  // namespace

extern "C" {
ssize_t __real_getxattr(const char* path, const char* name, void* value, size_t size);

ssize_t __wrap_getxattr(const char* path, const char* name, void* value, size_t size) {
  if (recorded_layout.empty() || std::string_view(name) != "lustre.lov") {
    return __real_getxattr(path, name, value, size);
  }
  if (recorded_layout.size() > size) {
    errno = ERANGE;
    return -1;
  }
  std::ranges::copy(recorded_layout, static_cast<std::byte*>(value));
  return static_cast<ssize_t>(recorded_layout.size());
}
}

TEST_SUITE_BEGIN("stripe");

namespace {

constexpr std::uint64_t kToTheEnd = ~std::uint64_t{0};
constexpr std::uint32_t kStale = 0x1, kInstantiated = 0x10, kExtension = 0x40, kParity = 0x80;

struct Layout {
  std::vector<std::byte> bytes;

  Layout& add(std::uint64_t value, std::size_t length) {
    for (std::size_t i = 0; i < length; ++i) {
      bytes.push_back(static_cast<std::byte>(i < 8 ? value >> (8 * i) : 0));
    }
    return *this;
  }
};

struct Plain {
  std::uint64_t stripe_bytes = kMiB;
  std::uint32_t count = 4;
  std::uint32_t pattern = 0x1;
  bool pooled = false;
};

// lov_user_md_v1 or lov_user_md_v3, with an entry of 24 bytes for each object.
Layout plain(const Plain& given) {
  Layout layout;
  layout.add(given.pooled ? 0x0BD30BD0 : 0x0BD10BD0, 4).add(given.pattern, 4).add(0x2a, 16);
  layout.add(given.stripe_bytes, 4).add(given.count, 2).add(0, 2);
  if (given.pooled) layout.add(0x687361 /* "ash" */, 16);
  const std::uint32_t objects = given.count == 0xFFFF ? 0 : given.count;
  for (std::uint32_t i = 0; i < objects; ++i) layout.add(0x100 + i, 16).add(0, 4).add(i, 4);
  return layout;
}

struct Component {
  std::uint64_t start = 0, end = 0;
  Plain stripes;
  std::uint32_t flags = kInstantiated;
};

// lov_comp_md_v1, its entries of 48 bytes, then the layout of each.
Layout composite(const std::vector<Component>& components) {
  std::vector<Layout> parts;
  std::uint64_t size_bytes = 32 + 48 * components.size();
  for (const Component& component : components) {
    parts.push_back(plain(component.stripes));
    size_bytes += parts.back().bytes.size();
  }
  Layout layout;
  layout.add(0x0BD60BD0, 4).add(size_bytes, 4).add(7, 4).add(0, 2);
  layout.add(components.size(), 2).add(0, 2).add(0, 14);
  std::uint64_t offset = 32 + 48 * components.size();
  for (std::size_t i = 0; i < components.size(); ++i) {
    const Component& component = components[i];
    layout.add(i + 1, 4).add(component.flags, 4).add(component.start, 8).add(component.end, 8);
    layout.add(offset, 4).add(parts[i].bytes.size(), 4).add(0, 16);
    offset += parts[i].bytes.size();
  }
  for (const Layout& part : parts) {
    layout.bytes.insert(layout.bytes.end(), part.bytes.begin(), part.bytes.end());
  }
  return layout;
}

std::optional<Stripe> parsed(const Layout& layout, std::uint64_t file_bytes = 4 * kGiB) {
  return parse_stripe(layout.bytes, file_bytes);
}

// 1 stripe up to 64 MiB, 4 up to 1 GiB, 8 of 4 MiB from there on, as `lfs setstripe -E` makes it.
std::vector<Component> progressive() {
  return {{0, 64 * kMiB, {.count = 1}},
          {64 * kMiB, kGiB, {.count = 4}},
          {kGiB, kToTheEnd, {.stripe_bytes = 4 * kMiB, .count = 8, .pooled = true}}};
}

}  // namespace

TEST_CASE("layouts of versions 1 and 3") {
  CHECK(parsed(plain({})) == Stripe{kMiB, 4});
  CHECK(parsed(plain({.stripe_bytes = 64 * kKiB, .count = 1})) == Stripe{64 * kKiB, 1});
  CHECK(parsed(plain({.stripe_bytes = kGiB, .count = 2000, .pooled = true})) == Stripe{kGiB, 2000});
  CHECK(parsed(plain({.pattern = 0x201})) == Stripe{kMiB, 4});  // several stripes on one target
}

TEST_CASE("of a composite layout the component counts that holds most of the file") {
  const Layout layout = composite(progressive());
  CHECK(parsed(layout, 1) == Stripe{kMiB, 1});
  CHECK(parsed(layout, 64 * kMiB) == Stripe{kMiB, 1});
  CHECK(parsed(layout, 256 * kMiB) == Stripe{kMiB, 4});
  CHECK(parsed(layout, 5 * kGiB) == Stripe{4 * kMiB, 8});
  CHECK(parsed(layout, 0) == std::nullopt);
}

TEST_CASE("components without data of the file do not count") {
  for (const std::uint32_t flags :
       {0U, kExtension, kStale | kInstantiated, kParity | kInstantiated}) {
    auto components = progressive();
    components[2].flags = flags;
    CHECK(parsed(composite(components), 5 * kGiB) == Stripe{kMiB, 4});
  }
  auto components = progressive();
  components[0].stripes.pattern = 0x100;  // on the metadata server
  CHECK(parsed(composite(components), kMiB) == std::nullopt);
}

TEST_CASE("what tells of no objects is no stripe") {
  CHECK(parsed(plain({.count = 0})) == std::nullopt);
  CHECK(parsed(plain({.count = 0xFFFF})) == std::nullopt);
  CHECK(parsed(plain({.stripe_bytes = 0})) == std::nullopt);
  CHECK(parsed(plain({.stripe_bytes = kMiB + 1})) == std::nullopt);
  CHECK(parsed(plain({.pattern = 0x100})) == std::nullopt);
}

TEST_CASE("layouts that are cut short give nothing") {
  for (const Layout& whole : {plain({}), plain({.pooled = true}), composite(progressive())}) {
    const std::span<const std::byte> bytes(whole.bytes);
    const bool pooled = whole.bytes[2] == std::byte{0xd3};
    const std::size_t needed = whole.bytes[2] == std::byte{0xd6} ? bytes.size() : pooled ? 48 : 32;
    for (std::size_t length = 0; length < bytes.size(); ++length) {
      // An allocation of its own, so that a sanitizer sees a byte read past its end.
      const std::vector<std::byte> cut(bytes.begin(), bytes.begin() + static_cast<long>(length));
      CAPTURE(length);
      REQUIRE(parse_stripe(cut, 5 * kGiB).has_value() == (length >= needed));
    }
  }
}

TEST_CASE("bytes that lie are survived") {
  std::mt19937_64 random(1);
  for (int round = 0; round < 20'000; ++round) {
    Layout layout = round % 2 == 0 ? composite(progressive()) : plain({});
    for (int i = 0; i < 3; ++i) {
      layout.bytes[random() % std::min<std::size_t>(layout.bytes.size(), 200)] =
          static_cast<std::byte>(random());
    }
    const auto found = parsed(layout, random());
    REQUIRE((!found || (found->size_bytes >= 64 * kKiB && found->count > 0)));
  }
}

TEST_CASE("blocks are whole stripes, near the size that is asked for") {
  const auto blocks = [](std::uint64_t stripe_bytes) {
    return striped_block_bytes(16 * kMiB, {stripe_bytes, 4});
  };
  CHECK(blocks(kMiB) == 16 * kMiB);
  CHECK(blocks(3 * kMiB) == 15 * kMiB);
  CHECK(blocks(5 * kMiB) == 15 * kMiB);
  CHECK(blocks(12 * kMiB) == 12 * kMiB);
  CHECK(blocks(32 * kMiB) == 32 * kMiB);
  CHECK(blocks(64 * kMiB) == 64 * kMiB);
  CHECK(blocks(128 * kMiB) == 16 * kMiB);
  CHECK(blocks(0) == 16 * kMiB);
}

TEST_CASE("the layout of a file counts for the size that it has") {
  const TemporaryFolder folder;
  const std::string small = folder.write("small", kMiB);
  const std::string large = folder.write("large", 65 * kMiB);
  auto components = progressive();
  components[1].start = components[0].end = kMiB;
  recorded_layout = composite(components).bytes;
  CHECK(stripe_of(small) == Stripe{kMiB, 1});
  CHECK(stripe_of(large) == Stripe{kMiB, 4});
  CHECK(stripe_of(folder.path("missing")) == std::nullopt);
  recorded_layout = plain({.count = 2000}).bytes;  // 48,032 bytes
  CHECK(stripe_of(small) == Stripe{kMiB, 2000});
  recorded_layout.resize(64 * kKiB + 1);
  CHECK(stripe_of(small) == std::nullopt);
  recorded_layout.clear();
}

TEST_CASE("a file that is not on Lustre has no stripes") {
  const TemporaryFolder folder;
  CHECK(stripe_of(folder.write("file", 4 * kKiB)) == std::nullopt);
  CHECK(stripe_of(folder.path("missing")) == std::nullopt);
}
