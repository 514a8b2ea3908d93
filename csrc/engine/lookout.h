// lookout: which of the workers of one process wait for the doorbell of their claims. One does; the
// others rest until one is needed, so that a ring wakes one thread of each process and not all.
// Whoever takes a block while no one looks out calls one that rests, which looks, and so on.
// Nothing of it is shared between processes: no ring is lost with a process that is killed.
// Knows nothing of blocks. Any thread.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/doorbell.h"
#include "base/runtime.h"
#include "base/thread_safety.h"

namespace shardahead {

class Lookout {
 public:
  class Worker;

  explicit Lookout(Runtime& runtime) : runtime_(runtime) {}
  ~Lookout() = default;
  Lookout(const Lookout&) = delete;
  Lookout& operator=(const Lookout&) = delete;

 private:
  void begin();  // a worker looks
  void end();    // it looks no more, without having begun to wait: another is called to look
  bool wait_for_its_turn(const DoorbellWord& doorbell, std::uint32_t seen,
                         std::chrono::nanoseconds slice);

  Runtime& runtime_;
  Mutex mutex_;
  DoorbellWord call_{0};                          // rung for those that rest
  std::uint32_t looking_ GUARDED_BY(mutex_) = 0;  // or called to look, and on the way
  std::uint32_t called_ GUARDED_BY(mutex_) = 0;   // of looking_: those on the way
  std::uint32_t resting_ GUARDED_BY(mutex_) = 0;
  bool listening_ GUARDED_BY(mutex_) = false;  // one waits for the doorbell
};

// The part of one worker, in turn looking, at work or waiting. One thread.
class Lookout::Worker {
 public:
  explicit Worker(Lookout& lookout) : lookout_(lookout) { look(); }
  // Whatever ends the worker, another looks in its stead: so all end, where there is nothing left.
  ~Worker() { work(); }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Before it reads the doorbell and looks for something to do.
  void look();
  // It has found something, and does not look for a while.
  void work();
  // It has found nothing since the doorbell said `seen`: waits for a ring, for `slice` at most,
  // where no other does, and looks again. Whether it was the one that waits for the doorbell.
  bool wait(const DoorbellWord& doorbell, std::uint32_t seen, std::chrono::nanoseconds slice);

 private:
  Lookout& lookout_;
  bool looking_ = false;
};

}  // namespace shardahead
