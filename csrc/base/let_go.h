// let_go: the end of what may wait for a server when it ends: closing a file, unmapping it. Decides
// nothing about when. Any thread.
#pragma once

#include <memory>

#include "base/runtime.h"

namespace shardahead {

// Drops this reference on a thread that no one waits for; here, where there can be no thread.
void let_go_elsewhere(Runtime& runtime, std::shared_ptr<const void> what) noexcept;

}  // namespace shardahead
