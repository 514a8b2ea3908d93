#include "virtual_threads.h"

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

namespace shardahead::testing {
namespace {

constexpr std::uint64_t kLatestStartNanoseconds = 50'000;
constexpr std::uint64_t kLatestWakeNanoseconds = 20'000;

}  // namespace

void VirtualThreads::start(std::uint32_t rank, std::function<void()> body) {
  auto thread = std::make_unique<Thread>();
  thread->rank = rank;
  thread->due = now_ + Duration(random_.below(kLatestStartNanoseconds));
  thread->fiber = std::make_unique<Fiber>(std::move(body));
  threads_.push_back(std::move(thread));
}

void VirtualThreads::sleep(Duration duration) {
  if (burying_) return;
  running_->due = now_ + duration;
  give_way();
}

void VirtualThreads::wait_for_ring(const DoorbellWord& word, std::uint32_t seen, Duration timeout) {
  if (burying_) return;
  running_->due = now_ + timeout;
  running_->word = &word;
  running_->seen = seen;
  give_way();
}

// Changes the word, and returns who waits for that. Every rank has a mapping of its own: where the
// word lies does not tell. Those that were rung before are on their way already.
std::vector<VirtualThreads::Thread*> VirtualThreads::change(DoorbellWord& word) {
  const auto has_changed = [](Thread* each) { return doorbell_seen(*each->word) != each->seen; };
  std::vector<Thread*> waiting;
  for (const auto& thread : threads_) {
    if (thread->dead || thread->word == nullptr || has_changed(thread.get())) continue;
    waiting.push_back(thread.get());
  }
  ++word;
  std::erase_if(waiting, [&](Thread* each) { return !has_changed(each); });
  return waiting;
}

void VirtualThreads::ring_one(DoorbellWord& word) {
  const std::vector<Thread*> waiting = change(word);
  const Thread* const rung = waiting.empty() ? nullptr : waiting[random_.below(waiting.size())];
  for (Thread* each : waiting) each->seen += each == rung ? 0U : 1U;
}

void VirtualThreads::ring_unheard(DoorbellWord& word) {
  for (Thread* each : change(word)) ++each->seen;
}

void VirtualThreads::give_way() {
  at_step_(running_->rank);
  Thread& self = *running_;
  // Where no other is due before, it goes on: a change of stacks costs more than most steps.
  if (!self.dead && !stopped_ && next() == &self && self.due <= end_) {
    now_ = self.due;
    self.word = nullptr;
    return;
  }
  Fiber::suspend();
}

// The one that is due first; of several, the one that was started first.
VirtualThreads::Thread* VirtualThreads::next() {
  Thread* first = nullptr;
  for (const auto& thread : threads_) {
    if (thread->dead) continue;
    if (thread->word != nullptr && doorbell_seen(*thread->word) != thread->seen) {
      thread->word = nullptr;
      thread->due =
          std::min(thread->due, now_ + Duration(1 + random_.below(kLatestWakeNanoseconds)));
    }
    if (first == nullptr || thread->due < first->due) first = thread.get();
  }
  return first;
}

void VirtualThreads::resume(Thread& thread) {
  thread.word = nullptr;
  Thread* const before = std::exchange(running_, &thread);
  thread.fiber->resume();
  running_ = before;
  if (!thread.fiber->ended()) return;
  std::erase_if(threads_, [&](const auto& each) { return each.get() == &thread; });
}

bool VirtualThreads::run(Time end) {
  end_ = end;
  for (;;) {
    Thread* const thread = next();
    if (thread == nullptr) return true;
    if (stopped_ || thread->due > end) return false;
    now_ = std::max(now_, thread->due);
    resume(*thread);
  }
}

void VirtualThreads::kill(std::uint32_t rank) {
  for (const auto& thread : threads_) thread->dead |= thread->rank == rank;
}

void VirtualThreads::hold(std::uint32_t rank, Time until) {
  for (const auto& thread : threads_) {
    if (thread->rank != rank) continue;
    // Whoever waits for a ring, however long, looks for itself then.
    thread->due = thread->word != nullptr ? until : std::max(thread->due, until);
    thread->word = nullptr;
  }
}

bool VirtualThreads::bury() {
  burying_ = true;
  constexpr int kRounds = 8;
  for (int round = 0; round < kRounds && !threads_.empty(); ++round) {
    // Those that are started meanwhile come behind.
    std::vector<Thread*> left;
    for (const auto& thread : threads_) left.push_back(thread.get());
    for (Thread* thread : left) resume(*thread);
  }
  return threads_.empty();
}

void RankRuntime::start_thread(const std::string& name, std::function<void()> body) {
  if (threads_left_ == 0) {
    throw std::system_error(EAGAIN, std::generic_category(), "simulated thread " + name);
  }
  --threads_left_;
  threads_.start(rank_, std::move(body));
}

}  // namespace shardahead::testing
