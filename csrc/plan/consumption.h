// consumption: what the consumer of this process has been handed out, what of it is still held, and
// how far it has passed. Places are positions in consumption order (Plan::position). Knows neither
// files nor memory. Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/byte_range.h"
#include "base/thread_safety.h"
#include "plan/window.h"

namespace shardahead {

class Consumption {
 public:
  // A tensor of these bytes is on its way to the consumer; each is released once.
  void hand_out(ByteRange range);
  void release(ByteRange range) noexcept;

  // The consumer has passed what lies before `position_bytes` and next needs the bytes up to
  // `needed_bytes`. It counts as released up to the first tensor that is still held; one that lies
  // more than `straggler_bytes` behind is not waited for. Never further than `releasable_bytes`.
  ConsumerPosition pass(std::uint64_t position_bytes, std::uint64_t needed_bytes,
                        std::uint64_t straggler_bytes, std::uint64_t releasable_bytes = kNoEnd);

  // The parts of the range that no one holds.
  [[nodiscard]] std::vector<ByteRange> not_held(ByteRange range) const;
  // Tensors that pass() had not waited for, and that were released since the last call.
  std::vector<ByteRange> take_late();

 private:
  mutable Mutex mutex_;
  std::multimap<std::uint64_t, std::uint64_t> held_ GUARDED_BY(mutex_);  // begin, end
  std::uint64_t longest_bytes_ GUARDED_BY(mutex_) = 0;                   // that was ever handed out
  std::vector<ByteRange> late_ GUARDED_BY(mutex_);
  ConsumerPosition position_ GUARDED_BY(mutex_);
};

}  // namespace shardahead
