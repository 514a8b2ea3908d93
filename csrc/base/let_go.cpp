#include "base/let_go.h"

#include <exception>
#include <utility>

#include "base/signals_blocked.h"

namespace shardahead {

void let_go_elsewhere(Runtime& runtime, std::shared_ptr<const void> what) noexcept {
  if (!what) return;
  try {
    const SignalsBlocked blocked;
    runtime.start_thread("shardahead-close", [kept = std::move(what)]() mutable { kept.reset(); });
  } catch (const std::exception&) {
    return;  // dropped with the body of the thread that there is not
  }
}

}  // namespace shardahead
