#include "board/board_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <new>
#include <system_error>

#include "base/folder_names.h"

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
  const BoardDescriptor file(path.c_str(), flags);
  if (file.get() < 0) return;
  const bool ours = ::fstat(file.get(), &found) == 0 && untrusted(found).empty();
  if (ours && lock_now(file.get(), kGate) && !held_by_others(file.get(), kFirstSlot, kBoardSlots) &&
      is_still_at(path, found)) {
    ::unlink(path.c_str());
  }
}

}  // namespace

std::optional<BoardFile> BoardFile::join(const std::string& folder, const std::string& name,
                                         std::size_t size_bytes, BoardRefusal& refusal,
                                         const Begin& begin) {
  const std::string path = folder + "/" + name;
  constexpr int kAttempts = 100;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
    BoardDescriptor opened(path.c_str(), flags);
    if (opened.get() < 0) {
      refusal.reason = path + ": " + what("open", errno);
      return std::nullopt;
    }
    BoardFile file(path, std::move(opened));
    const int descriptor = file.descriptor_.get();
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
  constexpr std::size_t kMostNames = 10'000;
  try {
    for (const std::string& name : folder_names(folder, kMostNames)) {
      if (!name.starts_with(prefix)) continue;
      std::string path = folder;
      sweep_one(path.append("/").append(name));
    }
  } catch (const std::bad_alloc&) {
    return;  // what the killed left behind is still there for the next one
  }
}

BoardFile::BoardFile(std::string path, BoardDescriptor descriptor) noexcept
    : path_(std::move(path)), descriptor_(std::move(descriptor)) {}

BoardFile::BoardFile(BoardFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::move(other.descriptor_)),
      memory_(std::exchange(other.memory_, nullptr)),
      size_bytes_(other.size_bytes_),
      slot_(other.slot_),
      first_(other.first_) {}

// Called with the gate locked.
bool BoardFile::set_up(std::size_t size_bytes, BoardRefusal& refusal) {
  const int descriptor = descriptor_.get();
  first_ = !held_by_others(descriptor, kFirstSlot, kBoardSlots);
  struct stat found{};
  const auto size = static_cast<off_t>(size_bytes);
  if (first_ && ::ftruncate(descriptor, 0) != 0) {
    refusal.reason = path_ + ": " + what("ftruncate", errno);
    return false;
  }
  // Takes the memory now: a full /dev/shm would be a SIGBUS later.
  if (first_) {
    if (const int error = ::posix_fallocate(descriptor, 0, size); error != 0) {
      refusal.reason = path_ + ": " + what("fallocate", error);
      return false;
    }
  }
  if (::fstat(descriptor, &found) != 0 || found.st_size != size) {
    refusal.reason = path_ + ": not of the expected size";
    return false;
  }
  for (slot_ = 0; slot_ < kBoardSlots; ++slot_) {
    if (lock_now(descriptor, kFirstSlot + slot_)) break;
  }
  if (slot_ == kBoardSlots) {
    refusal.reason = path_ + ": too many participants";
    return false;
  }
  const char* failed = nullptr;
  memory_ = descriptor_.map(size_bytes, failed);
  if (memory_ == nullptr) {
    refusal.reason = path_ + ": " + what(failed, errno);
    return false;
  }
  size_bytes_ = size_bytes;
  return true;
}

BoardFile::~BoardFile() {
  // A child has not inherited the mapping: at its address may be something of its own.
  if (memory_ == nullptr || !is_here()) return;
  ::munmap(memory_, size_bytes_);
  leave();
}

// Without the gate nothing is removed: a board left behind is reset by the next to come.
void BoardFile::leave() noexcept {
  struct stat found{};
  const int descriptor = descriptor_.get();
  if (!lock_gate(descriptor)) return;
  const bool last = !held_by_others(descriptor, kFirstSlot, kBoardSlots);
  if (last && ::fstat(descriptor, &found) == 0 && is_still_at(path_, found)) {
    ::unlink(path_.c_str());
  }
}

bool BoardFile::is_dead(std::uint32_t slot) const noexcept {
  return slot < kBoardSlots && slot != slot_ &&
         !held_by_others(descriptor_.get(), kFirstSlot + static_cast<off_t>(slot), 1);
}

}  // namespace shardahead
