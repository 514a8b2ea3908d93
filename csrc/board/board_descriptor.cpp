#include "board/board_descriptor.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "base/signals_blocked.h"
#include "base/thread_safety.h"

namespace shardahead {
namespace {

// The open descriptors. A fork takes the mutex, so that it never comes between the call that makes
// one and its place in the list, nor between a mapping and its advice.
struct Registry {
  Mutex forking;
  std::vector<int> descriptors GUARDED_BY(forking);
};

// Never destroyed: a fork may come while the process exits.
Registry& registry() {
  static auto* const kept = new Registry;
  return *kept;
}

void before_fork() NO_THREAD_SAFETY_ANALYSIS { registry().forking.lock(); }

void after_fork() NO_THREAD_SAFETY_ANALYSIS { registry().forking.unlock(); }

// Only what is safe in a signal handler happens here: other threads may have held any mutex.
void after_fork_in_child() NO_THREAD_SAFETY_ANALYSIS {
  for (const int descriptor : registry().descriptors) ::close(descriptor);
  registry().descriptors.clear();
  registry().forking.unlock();
}

// Throws std::bad_alloc where no one would close them in a child.
Registry& watched_registry() {
  static std::once_flag once;
  std::call_once(once, [] {
    static_cast<void>(registry());
    if (::pthread_atfork(before_fork, after_fork, after_fork_in_child) != 0) throw std::bad_alloc();
  });
  return registry();
}

// Not the number of a standard stream, where that is closed: what others print would land there.
int above_standard_streams(int descriptor) noexcept {
  if (descriptor < 0 || descriptor > STDERR_FILENO) return descriptor;
  const int above = ::fcntl(descriptor, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  const int error = errno;
  ::close(descriptor);
  errno = error;
  return above;
}

}  // namespace

// Without signals: a handler that forks would wait for the mutex that its own thread holds.
BoardDescriptor::BoardDescriptor(const char* path, int flags) {
  constexpr mode_t kMode = 0600;
  Registry& open = watched_registry();
  const SignalsBlocked blocked;
  const MutexLock lock(open.forking);
  open.descriptors.reserve(open.descriptors.size() + 1);
  descriptor_ = above_standard_streams(::open(path, flags, kMode));
  if (descriptor_ >= 0) open.descriptors.push_back(descriptor_);
}

BoardDescriptor::BoardDescriptor(BoardDescriptor&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), process_(other.process_) {}

BoardDescriptor::~BoardDescriptor() {
  if (descriptor_ < 0 || !is_here()) return;
  // First: once it is off the list, a fork copies what it still holds.
  struct flock all{};
  all.l_type = F_UNLCK;
  all.l_whence = SEEK_SET;
  ::fcntl(descriptor_, F_OFD_SETLK, &all);
  {
    Registry& open = registry();
    const SignalsBlocked blocked;
    const MutexLock lock(open.forking);
    std::erase(open.descriptors, descriptor_);
  }
  // Last: the number is another's from here on.
  ::close(descriptor_);
}

std::byte* BoardDescriptor::map(std::size_t size_bytes, const char*& failed) const noexcept {
  const SignalsBlocked blocked;
  const MutexLock lock(registry().forking);
  void* mapped = ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor_, 0);
  if (mapped == MAP_FAILED) {
    failed = "mmap";
    return nullptr;
  }
  if (::madvise(mapped, size_bytes, MADV_DONTFORK) == 0) return static_cast<std::byte*>(mapped);
  failed = "madvise";
  const int error = errno;
  ::munmap(mapped, size_bytes);
  errno = error;
  return nullptr;
}

}  // namespace shardahead
