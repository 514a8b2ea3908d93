#include "reply_queue.h"

#include <sys/prctl.h>

#include <algorithm>

namespace slowfs {

ReplyQueue::ReplyQueue() : thread_([this] { run(); }) {}

ReplyQueue::~ReplyQueue() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  front_changed_.notify_one();
  thread_.join();
  for (const Entry& entry : heap_) entry.reply(Fate::abandon);
}

void ReplyQueue::push(Instant deadline, Reply reply) {
  const std::lock_guard lock(mutex_);
  const std::uint64_t sequence = next_sequence_++;
  heap_.push_back({deadline, sequence, std::move(reply)});
  std::push_heap(heap_.begin(), heap_.end());
  if (heap_.front().sequence == sequence) front_changed_.notify_one();
}

void ReplyQueue::run() {
  // The default slack of 50 microseconds would be a twentieth of a short round trip.
  prctl(PR_SET_TIMERSLACK, 1UL);
  std::unique_lock lock(mutex_);
  for (;;) {
    wait_until_due(lock);
    if (stopping_) return;
    std::pop_heap(heap_.begin(), heap_.end());
    const Reply reply = std::move(heap_.back().reply);
    heap_.pop_back();
    lock.unlock();
    reply(Fate::send);
    lock.lock();
  }
}

void ReplyQueue::wait_until_due(std::unique_lock<std::mutex>& lock) {
  while (!stopping_) {
    if (heap_.empty()) {
      front_changed_.wait(lock);
      continue;
    }
    const Instant deadline = heap_.front().deadline;
    if (deadline <= std::chrono::steady_clock::now()) return;
    front_changed_.wait_until(lock, deadline);
  }
}

}  // namespace slowfs
