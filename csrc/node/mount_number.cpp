#include "node/mount_number.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace shardahead {
namespace {

// Linux's struct statx and the constants for it.
struct KernelStatx {
  std::uint32_t mask = 0;
  std::array<std::uint32_t, 33> not_asked_for{};
  std::uint32_t device_major = 0;
  std::uint32_t device_minor = 0;
  std::uint64_t mount_id = 0;
  std::array<std::uint64_t, 13> spare{};
};
static_assert(sizeof(KernelStatx) == 256);

constexpr unsigned kMountId = 0x1000;        // STATX_MNT_ID, Linux 5.8
constexpr unsigned kMountIdUnique = 0x4000;  // STATX_MNT_ID_UNIQUE, Linux 6.8
constexpr unsigned kEmptyPath = 0x1000;      // AT_EMPTY_PATH
constexpr unsigned kDontSync = 0x4000;       // AT_STATX_DONT_SYNC

int ask(int folder, const char* path, unsigned flags, WantedNumber wanted,
        MountNumber& found) noexcept {
  KernelStatx told;
  // Asked for both, the kernel gives the unique one if it has such.
  const unsigned mask = kMountId | (wanted == WantedNumber::unique ? kMountIdUnique : 0);
  if (::syscall(SYS_statx, folder, path, flags, mask, &told) < 0) return -errno;
  if ((told.mask & (kMountId | kMountIdUnique)) == 0) return -ENODATA;
  found = {(told.mask & kMountIdUnique) != 0, told.mount_id, told.device_major, told.device_minor};
  return 0;
}

}  // namespace

int mount_number(const char* path, WantedNumber wanted, MountNumber& found) noexcept {
  return ask(AT_FDCWD, path, 0, wanted, found);
}

int mount_number(int descriptor, WantedNumber wanted, MountNumber& found) noexcept {
  return ask(descriptor, "", kEmptyPath | kDontSync, wanted, found);
}

// Unique numbers begin at 2^31 and count up. Listed ones are as small as can be, so that they and
// the device, of 12 and 20 bits, fit beside each other.
std::uint64_t key_of(const MountNumber& mount) noexcept {
  constexpr std::uint64_t kNotUnique = std::uint64_t{1} << 61U;
  if (mount.unique) return mount.number % kNotUnique;
  const std::uint64_t device =
      std::uint64_t{mount.device_major & 0xfffU} << 20U | (mount.device_minor & 0xfffffU);
  return kNotUnique | (mount.number & 0x1fffffffU) << 32U | device;
}

}  // namespace shardahead
