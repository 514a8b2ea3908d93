// process_mark: whether this is still the process that made an object. A forked child has its
// memory and none of the threads that use it: mutexes may be held for ever, and what is shared with
// others, or is not inherited, is not the child's to touch. Any thread, also of a child.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace shardahead {

class ProcessMark {
 public:
  // Of the process that calls.
  ProcessMark() noexcept;
  [[nodiscard]] bool is_here() const noexcept;

 private:
  pid_t process_;
  // Process ids alone do not tell: a child in a namespace of its own may have its parent's.
  std::uint64_t forks_;
};

}  // namespace shardahead
