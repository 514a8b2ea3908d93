#include "in_parallel.h"

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

#include "signals_blocked.h"

namespace shardahead {
namespace {

// To start a thread takes as long as some calls that find their answer on this node.
constexpr std::size_t kCallsOfOneThread = 4;

void start(std::vector<std::thread>& threads, std::size_t count,
           const std::function<void()>& body) {
  const SignalsBlocked blocked;
  threads.reserve(count);
  try {
    while (threads.size() < count) threads.emplace_back(body);
  } catch (const std::system_error&) {
    return;  // fewer do the same work
  }
}

}  // namespace

void in_parallel(std::size_t count, std::uint32_t threads,
                 const std::function<void(std::size_t)>& call) {
  std::atomic<std::size_t> next{0};  // only handed out; joining orders the rest
  const auto work = [&] {
    while (true) {
      const std::size_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= count) return;
      call(index);
    }
  };
  const std::size_t wanted = std::min<std::size_t>(threads, count / kCallsOfOneThread);
  std::vector<std::thread> others;
  if (wanted > 1) start(others, wanted - 1, work);
  work();
  for (std::thread& other : others) other.join();
}

}  // namespace shardahead
