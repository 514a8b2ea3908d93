// thread_safety: what Clang's analysis of locks needs to be told: which mutex guards a member,
// which functions want it held. A mistake is then an error of `make lint`; other compilers see none
// of it. Mutex, MutexLock and Condition are those of the standard library with that knowledge
// added.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define SHARDAHEAD_THREAD_SAFETY(attribute) __attribute__((attribute))
#else
#define SHARDAHEAD_THREAD_SAFETY(attribute)
#endif

// A member, or what a member points to, that is used with this mutex held only.
#define GUARDED_BY(mutex) SHARDAHEAD_THREAD_SAFETY(guarded_by(mutex))
// A function that its callers call with this mutex held.
#define REQUIRES(mutex) SHARDAHEAD_THREAD_SAFETY(requires_capability(mutex))
// A function that is right for a reason that the analysis does not see; a comment says which.
#define NO_THREAD_SAFETY_ANALYSIS SHARDAHEAD_THREAD_SAFETY(no_thread_safety_analysis)

namespace shardahead {

class SHARDAHEAD_THREAD_SAFETY(capability("mutex")) Mutex {
 public:
  Mutex() = default;
  ~Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void lock() SHARDAHEAD_THREAD_SAFETY(acquire_capability()) { mutex_.lock(); }
  void unlock() SHARDAHEAD_THREAD_SAFETY(release_capability()) { mutex_.unlock(); }

 private:
  friend class Condition;
  std::mutex mutex_;
};

// Holds a mutex to the end of its block; may let go of it meanwhile.
class SHARDAHEAD_THREAD_SAFETY(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) SHARDAHEAD_THREAD_SAFETY(acquire_capability(mutex))
      : mutex_(mutex) {
    mutex_.lock();
  }
  ~MutexLock() SHARDAHEAD_THREAD_SAFETY(release_capability()) {
    if (held_) mutex_.unlock();
  }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  void unlock() SHARDAHEAD_THREAD_SAFETY(release_capability()) {
    held_ = false;
    mutex_.unlock();
  }
  void lock() SHARDAHEAD_THREAD_SAFETY(acquire_capability()) {
    mutex_.lock();
    held_ = true;
  }

 private:
  Mutex& mutex_;
  bool held_ = true;
};

// Waits return for no reason, too: the caller looks again at what it waits for.
class Condition {
 public:
  void notify_one() noexcept { condition_.notify_one(); }
  void notify_all() noexcept { condition_.notify_all(); }

  void wait(Mutex& mutex) REQUIRES(mutex) {
    std::unique_lock lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  // Whether there was time left.
  template <typename Clock, typename Duration>
  bool wait_until(Mutex& mutex, std::chrono::time_point<Clock, Duration> until) REQUIRES(mutex) {
    std::unique_lock lock(mutex.mutex_, std::adopt_lock);
    const bool in_time = condition_.wait_until(lock, until) == std::cv_status::no_timeout;
    lock.release();
    return in_time;
  }

 private:
  std::condition_variable condition_;
};

}  // namespace shardahead
