// runtime_condition: who waits is woken, once, and who does not costs nothing.
#include "base/runtime_condition.h"

#include <doctest/doctest.h>

using namespace shardahead;

TEST_SUITE_BEGIN("runtime_condition");

namespace {

// Runs what the test wants to happen while a thread waits, and tells whether that thread was rung.
class WatchedWait final : public Runtime {
 public:
  Time now() noexcept override { return {}; }
  void wait_for_ring(const DoorbellWord& word, std::uint32_t seen,
                     std::chrono::nanoseconds timeout) noexcept override {
    waited_for = timeout;
    if (meanwhile) meanwhile();
    rung = doorbell_seen(word) - seen;
    of_word = &word;
  }
  void start_thread(const std::string&, std::function<void()>) override {}

  std::function<void()> meanwhile;
  std::chrono::nanoseconds waited_for{0};
  std::uint32_t rung = 0;
  const DoorbellWord* of_word = nullptr;
};

struct Waiting {
  Mutex mutex;
  WatchedWait runtime;
  RuntimeCondition condition{runtime};

  void wait() {
    const MutexLock lock(mutex);
    condition.wait(mutex, std::chrono::milliseconds(50));
  }
  void notify() {
    const MutexLock lock(mutex);
    condition.notify_all(mutex);
  }
  [[nodiscard]] std::uint32_t word() const { return doorbell_seen(*runtime.of_word); }
};

}  // namespace

TEST_CASE("a wait lets go of the mutex, and a notification meanwhile rings it once") {
  Waiting waiting;
  waiting.runtime.meanwhile = [&] {
    waiting.notify();
    waiting.notify();
  };
  waiting.wait();
  CHECK(waiting.runtime.rung == 1);
  CHECK(waiting.runtime.waited_for == std::chrono::milliseconds(50));
}

TEST_CASE("where no one waits, or no one any more, nothing is rung") {
  Waiting waiting;
  waiting.notify();
  waiting.wait();
  CHECK(waiting.runtime.rung == 0);
  const std::uint32_t before = waiting.word();
  waiting.notify();
  CHECK(waiting.word() == before);
}

TEST_CASE("of two that wait one may have given up") {
  Waiting waiting;
  waiting.runtime.meanwhile = [&] {
    waiting.runtime.meanwhile = nullptr;
    waiting.wait();  // and it was not rung
    waiting.notify();
  };
  waiting.wait();
  CHECK(waiting.runtime.rung == 1);
}

TEST_SUITE_END();
