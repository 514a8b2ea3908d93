// mount_number: by which number the kernel knows the mount on which a file lies. Asked of statx(2)
// with constants and a structure of its own: musl, and headers of Linux before 5.8, lack them. No
// state; any thread.
#pragma once

#include <cstdint>

namespace shardahead {

struct MountNumber {
  // Given to one mount and to no other as long as the kernel runs; Linux 6.8. Else the one that
  // /proc/self/mountinfo has, which the kernel gives to the next mount once this one is gone.
  bool unique = false;
  std::uint64_t number = 0;
  std::uint32_t device_major = 0;
  std::uint32_t device_minor = 0;
  friend bool operator==(const MountNumber&, const MountNumber&) = default;
};

enum class WantedNumber { listed, unique };

// Of the path, once its symlinks are followed, or of an open file. Returns 0 or -errno; ENODATA
// where the kernel does not tell it (before Linux 5.8). Who wants a unique one is given the listed
// one where there is none.
int mount_number(const char* path, WantedNumber wanted, MountNumber& found) noexcept;
int mount_number(int descriptor, WantedNumber wanted, MountNumber& found) noexcept;

// Stands for the mount where something about it is remembered; less than 2^62. Where the number is
// not unique, the device is part of it: the next mount has seldom both.
std::uint64_t key_of(const MountNumber& mount) noexcept;

}  // namespace shardahead
