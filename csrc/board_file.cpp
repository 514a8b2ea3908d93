#include "board_file.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <mutex>
#include <system_error>

namespace shardahead {
namespace {

// Byte 0 is held while joining and leaving, byte 1 + i by the participant in slot i.
constexpr off_t kGate = 0;
constexpr off_t kFirstSlot = 1;

std::string what(const char* operation, int errno_value) {
  return std::string(operation) + ": " + std::generic_category().message(errno_value);
}

struct flock lock_of(short type, off_t begin, off_t length) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = begin;
  lock.l_len = length;
  return lock;
}

bool lock_now(int descriptor, off_t begin) {
  struct flock lock = lock_of(F_WRLCK, begin, 1);
  return ::fcntl(descriptor, F_OFD_SETLK, &lock) == 0;
}

// Whether someone else holds a lock in the range. Where that cannot be told, someone may.
bool held_by_others(int descriptor, off_t begin, off_t length) {
  struct flock lock = lock_of(F_WRLCK, begin, length);
  return ::fcntl(descriptor, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

// A fork shares the open file description, hence the locks: the child would keep a dead parent
// alive. So the child closes its copies at once. Only async-signal-safe things happen there.
constexpr std::size_t kMaxOpenBoards = 256;
std::array<std::atomic<int>, kMaxOpenBoards> open_boards{};  // descriptor + 1; 0 is empty

void close_boards_in_child() {
  for (auto& entry : open_boards) {
    if (const int held = entry.exchange(0); held != 0) ::close(held - 1);
  }
}

bool remember(int descriptor) {
  static std::once_flag once;
  std::call_once(once, [] { ::pthread_atfork(nullptr, nullptr, close_boards_in_child); });
  for (auto& entry : open_boards) {
    int empty = 0;
    if (entry.compare_exchange_strong(empty, descriptor + 1)) return true;
  }
  return false;
}

void forget(int descriptor) {
  for (auto& entry : open_boards) {
    int held = descriptor + 1;
    if (entry.compare_exchange_strong(held, 0)) return;
  }
}

// Waits for the gate: it is held for microseconds, or by a process that was stopped.
bool lock_gate(int descriptor) {
  constexpr int kAttempts = 200;
  constexpr useconds_t kPauseMicroseconds = 5000;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (lock_now(descriptor, kGate)) return true;
    ::usleep(kPauseMicroseconds);
  }
  return false;
}

void unlock(int descriptor, off_t begin) {
  struct flock lock = lock_of(F_UNLCK, begin, 1);
  ::fcntl(descriptor, F_OFD_SETLK, &lock);
}

// A file that another user could have made, or could reach, is not used.
std::string untrusted(const struct stat& found) {
  if (!S_ISREG(found.st_mode)) return "not a regular file";
  if (found.st_uid != ::geteuid()) return "it belongs to another user";
  if ((found.st_mode & 0077U) != 0) return "others may open it";
  if (found.st_nlink > 1) return "it has other names";
  return "";
}

bool is_still_at(const std::string& path, const struct stat& opened) {
  struct stat found{};
  return ::lstat(path.c_str(), &found) == 0 && found.st_ino == opened.st_ino &&
         found.st_dev == opened.st_dev;
}

// Removes a board of this user in which no one is left.
void sweep_one(const std::string& path) {
  struct stat found{};
  if (::lstat(path.c_str(), &found) != 0 || !untrusted(found).empty()) return;
  const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
  const int descriptor = ::open(path.c_str(), flags);
  if (descriptor < 0) return;
  const bool ours = ::fstat(descriptor, &found) == 0 && untrusted(found).empty();
  if (ours && lock_now(descriptor, kGate) && !held_by_others(descriptor, kFirstSlot, kBoardSlots) &&
      is_still_at(path, found)) {
    ::unlink(path.c_str());
  }
  ::close(descriptor);
}

}  // namespace

std::optional<BoardFile> BoardFile::join(const std::string& folder, const std::string& name,
                                         std::size_t size_bytes, BoardRefusal& refusal,
                                         const Begin& begin) {
  const std::string path = folder + "/" + name;
  constexpr int kAttempts = 100;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
    const int descriptor = ::open(path.c_str(), flags, 0600);
    if (descriptor < 0) {
      refusal.reason = path + ": " + what("open", errno);
      return std::nullopt;
    }
    BoardFile file(path, descriptor);
    struct stat found{};
    if (::fstat(descriptor, &found) != 0) {
      refusal.reason = path + ": " + what("fstat", errno);
      return std::nullopt;
    }
    // The last one out may have removed it between our open and our lock.
    if (found.st_nlink == 0) continue;
    if (const std::string reason = untrusted(found); !reason.empty()) {
      refusal.reason = path;
      refusal.reason.append(": ").append(reason);
      return std::nullopt;
    }
    if (!lock_gate(descriptor)) {
      refusal.reason = path + ": another process does not let go of it";
      return std::nullopt;
    }
    if (!is_still_at(path, found)) continue;
    const bool joined = file.set_up(size_bytes, refusal);
    if (joined && file.first_ && begin) begin(file.memory_);
    unlock(descriptor, kGate);
    if (!joined) return std::nullopt;
    return file;
  }
  refusal.reason = path + ": it is removed as often as it is made";
  return std::nullopt;
}

void BoardFile::sweep(const std::string& folder, const std::string& prefix) noexcept {
  // Anyone may put files into /dev/shm: neither their number nor their kind may hold us up.
  constexpr int kMostEntries = 10'000;
  std::error_code error;
  std::filesystem::directory_iterator entry(folder, error);
  for (int seen = 0; !error && entry != end(entry) && seen < kMostEntries; ++seen) {
    if (entry->path().filename().native().starts_with(prefix)) sweep_one(entry->path().native());
    entry.increment(error);
  }
}

BoardFile::BoardFile(std::string path, int descriptor) noexcept
    : path_(std::move(path)), descriptor_(descriptor), process_(::getpid()) {}

BoardFile::BoardFile(BoardFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      memory_(std::exchange(other.memory_, nullptr)),
      size_bytes_(other.size_bytes_),
      slot_(other.slot_),
      first_(other.first_),
      process_(other.process_) {}

// Called with the gate locked.
bool BoardFile::set_up(std::size_t size_bytes, BoardRefusal& refusal) {
  first_ = !held_by_others(descriptor_, kFirstSlot, kBoardSlots);
  struct stat found{};
  const auto size = static_cast<off_t>(size_bytes);
  if (first_ && ::ftruncate(descriptor_, 0) != 0) {
    refusal.reason = path_ + ": " + what("ftruncate", errno);
    return false;
  }
  // Takes the memory now: a full /dev/shm would be a SIGBUS later.
  if (first_) {
    if (const int error = ::posix_fallocate(descriptor_, 0, size); error != 0) {
      refusal.reason = path_ + ": " + what("fallocate", error);
      return false;
    }
  }
  if (::fstat(descriptor_, &found) != 0 || found.st_size != size) {
    refusal.reason = path_ + ": not of the expected size";
    return false;
  }
  for (slot_ = 0; slot_ < kBoardSlots; ++slot_) {
    if (lock_now(descriptor_, kFirstSlot + slot_)) break;
  }
  if (slot_ == kBoardSlots || !remember(descriptor_)) {
    refusal.reason = path_ + ": too many participants";
    return false;
  }
  void* mapped = ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor_, 0);
  if (mapped == MAP_FAILED) {
    refusal.reason = path_ + ": " + what("mmap", errno);
    return false;
  }
  // A mapping, too, holds the open file description, and with it the lock: no child may have it.
  if (::madvise(mapped, size_bytes, MADV_DONTFORK) != 0) {
    refusal.reason = path_ + ": " + what("madvise", errno);
    ::munmap(mapped, size_bytes);
    return false;
  }
  memory_ = static_cast<std::byte*>(mapped);
  size_bytes_ = size_bytes;
  return true;
}

BoardFile::~BoardFile() {
  if (memory_ != nullptr) ::munmap(memory_, size_bytes_);
  if (descriptor_ < 0 || process_ != ::getpid()) return;
  leave();
  forget(descriptor_);
  ::close(descriptor_);
}

// Without the gate nothing is removed: a board left behind is reset by the next to come.
void BoardFile::leave() noexcept {
  struct stat found{};
  if (memory_ == nullptr || !lock_gate(descriptor_)) return;
  const bool last = !held_by_others(descriptor_, kFirstSlot, kBoardSlots);
  if (last && ::fstat(descriptor_, &found) == 0 && is_still_at(path_, found)) {
    ::unlink(path_.c_str());
  }
}

bool BoardFile::is_dead(std::uint32_t slot) const noexcept {
  return slot < kBoardSlots && slot != slot_ &&
         !held_by_others(descriptor_, kFirstSlot + static_cast<off_t>(slot), 1);
}

}  // namespace shardahead
