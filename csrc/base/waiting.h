// waiting: what every wait of a consumer has in common, whatever it waits for. Plain values. Any
// thread.
#pragma once

#include <chrono>
#include <functional>

namespace shardahead {

// How often a waiting consumer looks up: so soon is Ctrl-C seen.
inline constexpr auto kConsumerSlice = std::chrono::milliseconds(50);

// Called while a consumer waits, every kConsumerSlice or more often, on its own thread; it may
// throw to end the wait.
using Between = std::function<void()>;

}  // namespace shardahead
