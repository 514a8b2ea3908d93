#include "base/runtime.h"

#include <pthread.h>
#include <time.h>

#include <cstddef>
#include <new>
#include <thread>
#include <utility>

namespace shardahead {

std::chrono::nanoseconds Runtime::thread_cpu_time() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

namespace {

class SystemRuntime final : public Runtime {
 public:
  Time now() noexcept override { return std::chrono::steady_clock::now(); }
  void wait_for_ring(const DoorbellWord& word, std::uint32_t seen,
                     std::chrono::nanoseconds timeout) noexcept override {
    shardahead::wait_for_ring(word, seen, timeout);
  }
  void start_thread(const std::string& name, std::function<void()> body) override {
    std::thread([name, body = std::move(body)] {
      ::pthread_setname_np(::pthread_self(), name.c_str());
      try {
        body();
      } catch (...) {
        return;  // it has recorded what it could; nothing that a thread meets ends the process
      }
    }).detach();
  }
};

}  // namespace

Runtime& system_runtime() noexcept {
  // In static storage and never destroyed; see the header.
  alignas(SystemRuntime) static std::byte storage[sizeof(SystemRuntime)];
  static SystemRuntime* const instance = ::new (storage) SystemRuntime;
  return *instance;
}

}  // namespace shardahead
