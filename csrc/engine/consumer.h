// consumer: how the consumers of this process come to their bytes: they wait for who brings them
// in, read by themselves where waiting is in vain, and wait for others that would empty what they
// read. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/runtime.h"
#include "base/thread_safety.h"
#include "base/waiting.h"
#include "board/patience.h"
#include "engine/crew.h"
#include "engine/fetch.h"
#include "engine/fetch_result.h"
#include "node/file_io.h"
#include "node/file_table.h"
#include "plan/plan.h"
#include "plan/strategy.h"

namespace shardahead {

class Consumer {
 public:
  // All references must outlive it.
  Consumer(FileIo& io, Runtime& runtime, FileTable& files, StepTable& steps)
      : io_(io), runtime_(runtime), files_(files), steps_(steps) {}
  ~Consumer() = default;
  Consumer(const Consumer&) = delete;
  Consumer& operator=(const Consumer&) = delete;

  // True once all of these blocks are settled, by whomever; false where that is not known, where no
  // worker runs, or where they do not move (patience.h).
  bool wait_for_blocks(const Crew& crew, BlockRange blocks, const Between& between);
  // Says that this rank has opened its files, and waits for others to have (Engine::meet).
  void meet(const Crew& crew, std::uint32_t expected, const Between& between);

  // Whether every page of the range can be used without waiting; nothing where that is not known.
  // Never waits itself: a file that is not open, whose open() might, is not up to date.
  [[nodiscard]] std::optional<bool> is_up_to_date(std::size_t file, ByteRange range) const;
  // Brings the range in on the caller's thread; `plainly` where a page that cannot be read counts
  // as resident, so that each byte has to be read.
  FetchResult fetch(std::size_t file, ByteRange range, bool plainly) noexcept;

 private:
  FileIo& io_;
  Runtime& runtime_;
  FileTable& files_;
  StepTable& steps_;
  Mutex mutex_;
  Patience patience_ GUARDED_BY(mutex_);  // of all consumers of this process
};

using OpenFile = std::function<std::shared_ptr<const File>()>;

// The same for one who must take no mutex of the open files, as in a forked child. What `open`
// throws is the error of the result.
FetchResult fetch_for_consumer(FileIo& io, StepTable& steps, const OpenFile& open,
                               const std::string& path, ByteRange range, bool plainly) noexcept;

}  // namespace shardahead
