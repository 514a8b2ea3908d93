#include "node/file_io.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <limits>
#include <string>
#include <vector>

#include "base/proc_text.h"
#include "node/mount.h"
#include "node/mount_number.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22  // Linux 5.14
#endif
#ifndef SYS_cachestat
#define SYS_cachestat 451  // the same on every architecture; Linux 6.5
#endif

namespace shardahead {

std::string FileIo::real_path(int) noexcept { return {}; }

namespace {

static_assert(sizeof(off_t) == 8, "files of 2 GiB and more take -D_FILE_OFFSET_BITS=64");

constexpr auto kOverlayMagic = 0x794c7630;  // OVERLAYFS_SUPER_MAGIC

template <typename Call>
auto retry_interrupted(Call&& call) noexcept {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

int or_errno(int result) noexcept { return result < 0 ? -errno : result; }

// Since 1970; what 64 bits cannot say, before 1677 and after 2262, is the nearest that they can.
std::int64_t nanoseconds(const timespec& time) noexcept {
  constexpr std::int64_t kSecond = 1'000'000'000;
  // Both parts of one sign: else the product may overflow where the sum does not.
  const bool borrows = time.tv_sec < 0 && time.tv_nsec > 0;
  const std::int64_t seconds = borrows ? time.tv_sec + 1 : time.tv_sec;
  const std::int64_t rest = borrows ? time.tv_nsec - kSecond : time.tv_nsec;
  std::int64_t product = 0;
  std::int64_t sum = 0;
  if (!__builtin_mul_overflow(seconds, kSecond, &product) &&
      !__builtin_add_overflow(product, rest, &sum)) {
    return sum;
  }
  return seconds < 0 ? std::numeric_limits<std::int64_t>::min()
                     : std::numeric_limits<std::int64_t>::max();
}

void copy_status(const struct stat& from, FileStatus& to) noexcept {
  to.size_bytes = static_cast<std::uint64_t>(from.st_size);
  to.device = from.st_dev;
  to.inode = from.st_ino;
  to.modified_nanoseconds = nanoseconds(from.st_mtim);
  to.mode = from.st_mode;
}

// What is known of some mounts, each at its key modulo the size: the key, then whether it is an
// overlay, then a bit that is set. No lock: a fork may take place while a thread is here, and the
// child would wait for it for ever. Relaxed: each word says all that it means.
std::array<std::atomic<std::uint64_t>, 64> known_mounts{};

bool find_overlay(int descriptor) {
  MountNumber listed;
  if (mount_number(descriptor, WantedNumber::listed, listed) < 0) return false;
  const auto mounts = parse_mountinfo(file_text("/proc/self/mountinfo").value_or(""));
  const auto mount = std::ranges::find(mounts, listed.number, &Mount::id);
  if (mount != mounts.end()) return mount->type == "overlay";
  // Detached, or of another mount namespace. Not asked first: it may cost a round trip.
  struct statfs found{};
  return ::fstatfs(descriptor, &found) == 0 && found.f_type == kOverlayMagic;
}

// Looked up once for each mount.
bool lies_on_overlay(int descriptor) noexcept {
  MountNumber mount;
  if (mount_number(descriptor, WantedNumber::unique, mount) < 0) return false;
  const std::uint64_t key = key_of(mount);
  auto& known = known_mounts[key % known_mounts.size()];
  const std::uint64_t seen = known.load(std::memory_order_relaxed);
  if ((seen & 1U) != 0 && seen >> 2U == key) return (seen & 2U) != 0;
  try {
    const bool overlay = find_overlay(descriptor);
    known.store(key << 2U | (overlay ? 2U : 0U) | 1U, std::memory_order_relaxed);
    return overlay;
  } catch (const std::exception&) {
    return false;
  }
}

// What the kernel claims of a page that is not there: nothing where it cannot be asked.
std::optional<bool> claims_page(int descriptor, std::uint64_t offset) noexcept {
  void* mapped =
      ::mmap(nullptr, page_bytes(), PROT_NONE, MAP_SHARED, descriptor, static_cast<off_t>(offset));
  if (mapped == MAP_FAILED) return std::nullopt;
  unsigned char claimed = 1;
  const int result = ::mincore(mapped, page_bytes(), &claimed);
  ::munmap(mapped, page_bytes());
  return result < 0 || (claimed & 1U) != 0;
}

// Only the kernel knows to whom it tells the truth: owners who are not of the user namespace, and
// those of mounts with mapped ids, are shown as the overflow uid, and a read-only mount refuses
// writers whom it tells. So it is asked about a page behind the end of the file: first about one
// that no huge page at the end reaches, which may be too far for the filesystem.
bool is_told_residency(int descriptor, const struct stat& file) noexcept {
  constexpr uid_t kOverflowUid = 65534;  // may be anyone's
  if (!S_ISREG(file.st_mode)) return false;
  const auto size_bytes = static_cast<std::uint64_t>(file.st_size);
  auto claims = claims_page(descriptor, align_up(size_bytes, kGiB));
  if (!claims) claims = claims_page(descriptor, align_up(size_bytes, page_bytes()));
  // Not to be mapped, so mincore will fail: all that is left to tell is why.
  return claims ? !*claims : file.st_uid == ::geteuid() && file.st_uid != kOverflowUid;
}

// Someone holds a lease on the file, and has been told to give it up: waits for that as any open()
// does. By the descriptor of what was looked at, so that it is no FIFO.
int open_leased(const std::string& path) noexcept {
  const int looked_at =
      retry_interrupted([&] { return ::open(path.c_str(), O_PATH | O_CLOEXEC | O_NOCTTY); });
  if (looked_at < 0) return -errno;
  struct stat found{};
  int result = ::fstat(looked_at, &found) < 0 ? -errno : -EWOULDBLOCK;
  if (result == -EWOULDBLOCK && S_ISREG(found.st_mode)) {
    std::array<char, 32> name{};
    std::snprintf(name.data(), name.size(), "/proc/self/fd/%d", looked_at);
    result = or_errno(
        retry_interrupted([&] { return ::open(name.data(), O_RDONLY | O_CLOEXEC | O_NOCTTY); }));
  }
  ::close(looked_at);
  return result;
}

// Linux's struct cachestat_range and struct cachestat, which older headers lack.
struct CachestatRange {
  std::uint64_t offset;
  std::uint64_t length;
};
struct CachestatResult {
  std::uint64_t cached, dirty, writeback, evicted, recently_evicted;
};

class SystemFileIo final : public FileIo {
 public:
  int status(const std::string& path, FileStatus& status) noexcept override {
    struct stat found{};
    if (retry_interrupted([&] { return ::stat(path.c_str(), &found); }) < 0) return -errno;
    copy_status(found, status);
    return 0;
  }

  int status(int descriptor, FileStatus& status) noexcept override {
    struct stat found{};
    if (::fstat(descriptor, &found) < 0) return -errno;
    copy_status(found, status);
    status.owned_or_writable = is_told_residency(descriptor, found);
    status.overlay = lies_on_overlay(descriptor);
    return 0;
  }

  int open(const std::string& path) noexcept override {
    const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    const int descriptor = retry_interrupted([&] { return ::open(path.c_str(), flags); });
    if (descriptor < 0) return errno == EWOULDBLOCK ? open_leased(path) : -errno;
    // From here on as if it had not been there: it may be passed on to a server.
    ::fcntl(descriptor, F_SETFL, O_RDONLY);
    return descriptor;
  }

  std::string real_path(int descriptor) noexcept override {
    try {
      return link_target("/proc/self/fd/" + std::to_string(descriptor));
    } catch (const std::exception&) {
      return {};
    }
  }

  // Not retried: on Linux the descriptor is gone even when close says EINTR.
  int close(int descriptor) noexcept override { return or_errno(::close(descriptor)); }

  std::int64_t pread(int descriptor, std::byte* buffer, ByteRange range) noexcept override {
    const ssize_t count = retry_interrupted([&] {
      return ::pread(descriptor, buffer, range.length, static_cast<off_t>(range.offset));
    });
    return count < 0 ? -errno : count;
  }

  // posix_fadvise returns its error instead of setting errno.
  int fadvise_willneed(int descriptor, ByteRange range) noexcept override {
    return -::posix_fadvise(descriptor, static_cast<off_t>(range.offset),
                            static_cast<off_t>(range.length), POSIX_FADV_WILLNEED);
  }

  int fadvise_dontneed(int descriptor, ByteRange range) noexcept override {
    return -::posix_fadvise(descriptor, static_cast<off_t>(range.offset),
                            static_cast<off_t>(range.length), POSIX_FADV_DONTNEED);
  }

  int fadvise_random(int descriptor) noexcept override {
    return -::posix_fadvise(descriptor, 0, 0, POSIX_FADV_RANDOM);
  }

  int fadvise_normal(int descriptor) noexcept override {
    return -::posix_fadvise(descriptor, 0, 0, POSIX_FADV_NORMAL);
  }

  int fadvise_sequential(int descriptor) noexcept override {
    return -::posix_fadvise(descriptor, 0, 0, POSIX_FADV_SEQUENTIAL);
  }

  int readahead(int descriptor, ByteRange range) noexcept override {
    const ssize_t result = ::readahead(descriptor, static_cast<off_t>(range.offset), range.length);
    return result < 0 ? -errno : 0;
  }

  int fault_in_huge_pages(int descriptor, ByteRange range) noexcept override;

  int fdatasync(int descriptor) noexcept override {
    return or_errno(retry_interrupted([&] { return ::fdatasync(descriptor); }));
  }

  std::int64_t cachestat(int descriptor, ByteRange range) noexcept override {
    if (range.empty()) return 0;  // a length of 0 means "to the end" to the kernel
    CachestatRange asked{range.offset, range.length};
    CachestatResult found{};
    if (::syscall(SYS_cachestat, descriptor, &asked, &found, 0U) < 0) return -errno;
    return static_cast<std::int64_t>(found.cached);
  }

  std::int64_t mincore(int descriptor, ByteRange range) noexcept override;

  int map(int descriptor, std::uint64_t length_bytes, MappedFor use,
          std::byte*& memory) noexcept override;

  int unmap(std::byte* memory, std::uint64_t length_bytes) noexcept override {
    return or_errno(::munmap(memory, length_bytes));
  }

  int fault_in(std::byte* pages, std::uint64_t length_bytes) noexcept override {
    return or_errno(
        retry_interrupted([&] { return ::madvise(pages, length_bytes, MADV_POPULATE_READ); }));
  }

  int give_up(std::byte* pages, std::uint64_t length_bytes) noexcept override {
    return or_errno(::madvise(pages, length_bytes, MADV_DONTNEED));
  }

  // The kernel's copy fails with EFAULT where ours would die of SIGBUS.
  std::int64_t copy_mapped(const std::byte* from, std::uint64_t length_bytes,
                           std::byte* to) noexcept override {
    const iovec target{to, length_bytes};
    const iovec source{const_cast<std::byte*>(from), length_bytes};
    const ssize_t count = ::process_vm_readv(::getpid(), &target, 1, &source, 1, 0);
    return count < 0 ? -errno : count;
  }
};

int SystemFileIo::fault_in_huge_pages(int descriptor, ByteRange range) noexcept {
  // With other pages a huge page is not 2 MiB but up to 512.
  if (page_bytes() != 4 * kKiB) return -ENOSYS;
  const std::uint64_t begin = align_down(range.offset, kHugePageBytes);
  void* mapped = ::mmap(nullptr, kPopulateMappedBytes, PROT_READ, MAP_SHARED, descriptor,
                        static_cast<off_t>(begin));
  if (mapped == MAP_FAILED) return -errno;
  const auto faulted = [&] {
    // Advice for all of it: for a part it would cut the mapping in two.
    if (::madvise(mapped, kPopulateMappedBytes, MADV_HUGEPAGE) < 0) return -errno;
    // Without the second huge page; of the first one nothing is left out.
    if (range.length <= kHugePageBytes) ::madvise(mapped, kPopulateMappedBytes, MADV_RANDOM);
    void* first = static_cast<std::byte*>(mapped) + align_down(range.offset - begin, page_bytes());
    return or_errno(
        retry_interrupted([&] { return ::madvise(first, page_bytes(), MADV_POPULATE_READ); }));
  };
  const int result = faulted();
  ::munmap(mapped, kPopulateMappedBytes);
  return result;
}

// Private: a file opened with direct_io can be mapped in no other way. MAP_NORESERVE: one larger
// than memory could else not be mapped writable.
int SystemFileIo::map(int descriptor, std::uint64_t length_bytes, MappedFor use,
                      std::byte*& memory) noexcept {
  const bool writable = use == MappedFor::use;
  void* mapped = ::mmap(nullptr, length_bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                        writable ? MAP_PRIVATE | MAP_NORESERVE : MAP_PRIVATE, descriptor, 0);
  if (mapped == MAP_FAILED) return -errno;
  if (!writable) ::madvise(mapped, length_bytes, MADV_HUGEPAGE);
  memory = static_cast<std::byte*>(mapped);
  return 0;
}

std::int64_t SystemFileIo::mincore(int descriptor, ByteRange range) noexcept {
  constexpr std::uint64_t kMappedBytes = 64 * kMiB;  // bounds the vector, whatever the file
  constexpr std::uint64_t kLeastPageBytes = 4 * kKiB;
  unsigned char pages[kMappedBytes / kLeastPageBytes];  // 16 KiB
  std::int64_t resident = 0;
  for (std::uint64_t at = range.offset; at < range.end(); at += kMappedBytes) {
    const std::uint64_t length = std::min(kMappedBytes, range.end() - at);
    void* mapped =
        ::mmap(nullptr, length, PROT_NONE, MAP_SHARED, descriptor, static_cast<off_t>(at));
    if (mapped == MAP_FAILED) return -errno;
    const int result = ::mincore(mapped, length, pages);
    const int error = errno;
    ::munmap(mapped, length);
    if (result < 0) return -error;
    const std::uint64_t count = align_up(length, page_bytes()) / page_bytes();
    for (std::uint64_t page = 0; page < count; ++page) resident += pages[page] & 1U;
  }
  return resident;
}

}  // namespace

FileIo& system_file_io() noexcept {
  // In static storage and never destroyed; see the header.
  alignas(SystemFileIo) static std::byte storage[sizeof(SystemFileIo)];
  static SystemFileIo* const instance = ::new (storage) SystemFileIo;
  return *instance;
}

std::uint64_t page_bytes() noexcept {
  static const auto bytes = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

int pread_full(FileIo& io, int descriptor, std::byte* buffer, ByteRange range,
               std::uint64_t& done) noexcept {
  for (done = 0; done < range.length;) {
    const std::int64_t count =
        io.pread(descriptor, buffer + done, {range.offset + done, range.length - done});
    if (count < 0) return static_cast<int>(count);
    if (count == 0) break;
    done += static_cast<std::uint64_t>(count);
  }
  return 0;
}

}  // namespace shardahead
