// mount_number: what stands for a mount, and the numbers of this machine's.
#include "node/mount_number.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <set>

#include "node/mount.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("mount_number");

TEST_CASE("mounts of the same number are told apart by their device, where it is not unique") {
  constexpr std::uint64_t kFirstUnique = (std::uint64_t{1} << 31U) + 1;
  const std::set<std::uint64_t> keys{
      key_of({false, 41, 0, 52}),          key_of({false, 41, 0, 53}),
      key_of({false, 41, 254, 0}),         key_of({false, 42, 0, 52}),
      key_of({true, kFirstUnique, 0, 52}), key_of({true, kFirstUnique + 1, 0, 52}),
      key_of({false, 41, 0, 0xfffff}),     key_of({false, 41, 0xfff, 0}),
      key_of({false, 0x1fffffff, 0, 0})};
  CHECK(keys.size() == 9);
  CHECK(*keys.rbegin() < std::uint64_t{1} << 62U);
  CHECK(key_of({true, kFirstUnique, 0, 52}) == key_of({true, kFirstUnique, 0, 53}));
}

TEST_CASE("of this machine") {
  MountNumber root;
  REQUIRE(mount_number("/", WantedNumber::listed, root) == 0);
  CHECK(root.number == mount_id_of("/"));
  CHECK_FALSE(root.unique);
  const int descriptor = ::open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  REQUIRE(descriptor >= 0);
  MountNumber listed;
  MountNumber unique;
  CHECK(mount_number(descriptor, WantedNumber::listed, listed) == 0);
  CHECK(mount_number(descriptor, WantedNumber::unique, unique) == 0);
  CHECK(mount_of("/proc/self/status").id == listed.number);
  CHECK(listed.device_minor == unique.device_minor);
  if (!unique.unique) {
    MESSAGE("no unique numbers in this kernel (Linux 6.8 has them)");
    CHECK(unique == listed);
  }
  ::close(descriptor);
}

TEST_CASE("what is not there") {
  MountNumber found;
  CHECK(mount_number("/no/such/file", WantedNumber::listed, found) == -ENOENT);
  CHECK(mount_number(-1, WantedNumber::unique, found) == -EBADF);
}

TEST_SUITE_END();
