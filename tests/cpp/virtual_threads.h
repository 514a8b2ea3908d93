// virtual_threads: the threads of several simulated processes, called ranks, on one virtual clock.
// Exactly one runs, until it sleeps or waits; then the one that is due next does, and the clock
// jumps there. The order follows from the seed. One real thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/runtime.h"
#include "fiber.h"
#include "simulated_random.h"

namespace shardahead::testing {

class VirtualThreads {
 public:
  using Time = Runtime::Time;
  using Duration = std::chrono::nanoseconds;

  // `at_step(rank)` is called whenever a thread of the rank gives way; it may kill the rank.
  VirtualThreads(std::uint64_t seed, std::function<void(std::uint32_t rank)> at_step)
      : random_(seed), at_step_(std::move(at_step)) {}

  [[nodiscard]] Time now() const noexcept { return now_; }
  // Begins a little later, as threads do.
  void start(std::uint32_t rank, std::function<void()> body);

  // Called by a virtual thread. Both come back at once when all is being buried.
  void sleep(Duration duration);
  void wait_for_ring(const DoorbellWord& word, std::uint32_t seen, Duration timeout);
  // As the kernel does: of those that wait already the others do not see that the word changes.
  void ring_one(DoorbellWord& word);
  void ring_unheard(DoorbellWord& word);

  // Until no thread is left but those of the dead (true), until `end`, or until stop().
  bool run(Time end);
  // run() comes back as soon as the thread that runs gives way.
  void stop() noexcept { stopped_ = true; }
  // Its threads stop where they are, as those of a killed process.
  void kill(std::uint32_t rank);
  // Its threads go on at `until`, not before, as those of a stopped process.
  void hold(std::uint32_t rank, Time until);
  // Lets all threads that are left run to their end, in no time, so that they return what they
  // hold. False where one does not end.
  bool bury();
  [[nodiscard]] bool burying() const noexcept { return burying_; }

 private:
  struct Thread {
    std::uint32_t rank = 0;
    Time due;
    const DoorbellWord* word = nullptr;  // waited for until `due`
    std::uint32_t seen = 0;
    bool dead = false;
    std::unique_ptr<Fiber> fiber;
  };

  void give_way();
  std::vector<Thread*> change(DoorbellWord& word);
  Thread* next();
  void resume(Thread& thread);

  Random random_;
  std::function<void(std::uint32_t)> at_step_;
  std::vector<std::unique_ptr<Thread>> threads_;
  Thread* running_ = nullptr;
  Time now_;
  Time end_;
  bool stopped_ = false;
  bool burying_ = false;
};

// What the threads of one rank use.
class RankRuntime final : public Runtime {
 public:
  // Of the threads that are asked for, the first `most_threads` can be started.
  RankRuntime(VirtualThreads& threads, std::uint32_t rank, std::uint32_t most_threads)
      : threads_(threads), rank_(rank), threads_left_(most_threads) {}

  Time now() noexcept override { return threads_.now(); }
  void wait_for_ring(const DoorbellWord& word, std::uint32_t seen,
                     std::chrono::nanoseconds timeout) noexcept override {
    threads_.wait_for_ring(word, seen, timeout);
  }
  void ring_one(DoorbellWord& word) noexcept override { threads_.ring_one(word); }
  void ring_unheard(DoorbellWord& word) noexcept override { threads_.ring_unheard(word); }
  void start_thread(const std::string& name, std::function<void()> body) override;

 private:
  VirtualThreads& threads_;
  std::uint32_t rank_;
  std::uint32_t threads_left_;
};

}  // namespace shardahead::testing
