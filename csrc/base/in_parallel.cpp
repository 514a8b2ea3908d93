#include "base/in_parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

#include "base/signals_blocked.h"

namespace shardahead {
namespace {

// To start a thread takes as long as some calls that find their answer on this node.
constexpr std::size_t kCallsOfOneThread = 4;

void start(std::vector<std::thread>& threads, std::size_t count,
           const std::function<void()>& body) {
  const SignalsBlocked blocked;
  try {
    threads.reserve(count);
    while (threads.size() < count) threads.emplace_back(body);
  } catch (const std::exception&) {
    return;  // no threads, or no memory for them: fewer do the same work
  }
}

}  // namespace

void in_parallel(std::size_t count, std::uint32_t threads,
                 const std::function<void(std::size_t)>& call) {
  std::atomic<std::size_t> next{0};  // only handed out; joining orders the rest
  std::atomic<bool> failed{false};
  std::exception_ptr first_failure;
  const auto work = [&] {
    while (!failed) {
      const std::size_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= count) return;
      try {
        call(index);
      } catch (...) {
        if (!failed.exchange(true)) first_failure = std::current_exception();
      }
    }
  };
  const std::size_t wanted = std::min<std::size_t>(threads, count / kCallsOfOneThread);
  std::vector<std::thread> others;
  if (wanted > 1) start(others, wanted - 1, work);
  work();
  for (std::thread& other : others) other.join();
  if (first_failure) std::rethrow_exception(first_failure);
}

}  // namespace shardahead
