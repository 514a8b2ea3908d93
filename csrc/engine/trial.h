// trial: whether the mounts of the files keep what is brought in, found out before the first block
// of a device. The worker that has the block carries it out and the others wait for it, so that
// nothing is fetched in vain. Any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "base/doorbell.h"
#include "base/runtime.h"
#include "base/thread_safety.h"
#include "base/waiting.h"
#include "board/claims.h"
#include "node/file_io.h"
#include "node/file_table.h"
#include "node/keeping.h"

namespace shardahead {

class Trial {
 public:
  // All references must outlive it; no one waits for a trial any more once it is `cancelled`.
  Trial(FileIo& io, Runtime& runtime, const std::atomic<bool>& cancelled)
      : io_(io), runtime_(runtime), cancelled_(cancelled) {}
  ~Trial() = default;
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;

  // False where bringing in these ranges would be in vain. The first call for a device tries it,
  // unless others (`claims`, if any) know already, after a call of `before_reads`, if any, and
  // brings in `tried_bytes` of the ranges; who calls meanwhile waits a moment for what it gives.
  bool try_mount(const File& file, const std::vector<ByteRange>& ranges, Claims* claims,
                 std::uint64_t& tried_bytes, const std::function<void()>& before_reads = {});

  // The worst of all devices, as far as they have been tried, here or by others (`claims`, or once
  // they are gone what close() kept). Nothing while nothing is known.
  [[nodiscard]] std::optional<Keeping> verdict(const Claims* claims) const;
  [[nodiscard]] bool is_in_vain(const Claims* claims) const;
  // What others have found is of the past from now on.
  void close(const Claims& claims) noexcept;

  // For who waits for a verdict: the bell is rung when there may be one.
  [[nodiscard]] const DoorbellWord& bell() const noexcept { return bell_; }
  // Whether anyone of this process has tried a mount, or is about it.
  [[nodiscard]] bool has_begun() const;
  // True for the first who asks: it has the mount tried although no worker had a block to try.
  bool begin_alone() noexcept;
  // Nothing came of that.
  void fail_alone() noexcept;

 private:
  KeepingCheck try_page_of(const File& file, const std::vector<ByteRange>& ranges, Claims* claims);
  // Until the bell rings. Gives up the lock, which is one of the mutex, meanwhile.
  void wait_for_bell(MutexLock& lock) REQUIRES(mutex_);

  FileIo& io_;
  Runtime& runtime_;
  const std::atomic<bool>& cancelled_;
  DoorbellWord bell_{0};

  mutable Mutex mutex_;
  // Of each device (st_dev) what the trial gave; nothing while it is going on.
  std::map<std::uint64_t, std::optional<Keeping>> found_ GUARDED_BY(mutex_);
  // What others had found when the claims were given up.
  Keeping told_ GUARDED_BY(mutex_) = Keeping::unknown;
  bool tried_alone_ GUARDED_BY(mutex_) = false;
  bool failed_alone_ GUARDED_BY(mutex_) = false;
};

}  // namespace shardahead
