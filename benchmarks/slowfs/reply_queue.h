// reply_queue: holds replies until their deadline and then runs them, any number of them on one
// thread. Does not know what a reply is. Equal deadlines keep the order of arrival.
// push() from any thread; replies run on the queue's thread and must not block for long.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "link_schedule.h"

namespace slowfs {

class ReplyQueue {
 public:
  enum class Fate { send, abandon };
  using Reply = std::function<void(Fate)>;

  ReplyQueue();
  // Abandons at once what is still waiting; only a reply being sent is waited for.
  ~ReplyQueue();
  ReplyQueue(const ReplyQueue&) = delete;
  ReplyQueue& operator=(const ReplyQueue&) = delete;

  void push(Instant deadline, Reply reply);

 private:
  struct Entry {
    Instant deadline;
    std::uint64_t sequence;
    Reply reply;

    bool operator<(const Entry& other) const noexcept {  // the front is the next one due
      if (deadline != other.deadline) return deadline > other.deadline;
      return sequence > other.sequence;
    }
  };

  void run();
  void wait_until_due(std::unique_lock<std::mutex>& lock);

  std::mutex mutex_;
  std::condition_variable front_changed_;
  bool stopping_ = false;
  std::uint64_t next_sequence_ = 0;
  std::vector<Entry> heap_;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace slowfs
