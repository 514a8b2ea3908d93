// fiber: a stack of its own for code that is to be stopped in the middle, at chosen places, and
// resumed later: a virtual thread without a thread of the system. It knows no clock and no order.
// One thread for all fibers.
#pragma once

#include <ucontext.h>

#include <array>
#include <cstddef>
#include <functional>

namespace shardahead::testing {

class Fiber {
 public:
  // `body` runs at the first resume(). It must let no exception out.
  explicit Fiber(std::function<void()> body);
  // Only of one that has ended or never begun: what lies on a stack is not unwound.
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Comes back when the body suspends or ends. Not called by a fiber.
  void resume();
  // Called by the fiber that runs.
  static void suspend();
  [[nodiscard]] bool ended() const noexcept { return ended_; }

 private:
  static void enter();
  void leave(bool for_good);
  void swap_exceptions();

  std::function<void()> body_;
  std::byte* stack_;
  ucontext_t inside_{};
  ucontext_t outside_{};
  // Of the C++ runtime: which exceptions are being handled. A thread has one, so each fiber needs
  // its own.
  std::array<std::byte, 2 * sizeof(void*)> exceptions_{};
  bool ended_ = false;
  // For the sanitizers, which have to be told of every change of stacks.
  void* inside_fake_stack_ = nullptr;
  const void* outside_bottom_ = nullptr;
  std::size_t outside_bytes_ = 0;
  void* inside_thread_ = nullptr;
  void* outside_thread_ = nullptr;
};

}  // namespace shardahead::testing
