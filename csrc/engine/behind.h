// behind: what becomes of the bytes that the consumers have passed. Where memory is short they are
// dropped, before the kernel has to choose between them and what was brought in and not read yet.
// It would choose the latter: pages that were read through a mapping count as active. A window
// alone gives 1.5 times the bytes there, window and dropping 1.00. Any thread.
#pragma once

#include <cstdint>
#include <memory>

#include "base/byte_range.h"
#include "base/runtime.h"
#include "base/thread_safety.h"
#include "board/claims.h"
#include "engine/mappings.h"
#include "node/file_io.h"
#include "node/file_table.h"
#include "plan/consumption.h"
#include "plan/plan.h"

namespace shardahead {

class Behind {
 public:
  // All references must outlive it.
  Behind(FileIo& io, Runtime& runtime, const Plan& plan, FileTable& files)
      : io_(io), plan_(plan), files_(files), mappings_(files, runtime) {}
  ~Behind() = default;
  Behind(const Behind&) = delete;
  Behind& operator=(const Behind&) = delete;

  [[nodiscard]] Mappings& mappings() noexcept { return mappings_; }
  [[nodiscard]] const std::shared_ptr<Consumption>& consumption() const noexcept {
    return consumption_;
  }

  // The consumer of this process has released what lies before this position: its mappings hold it
  // no longer. First this, for what a process has mapped is not dropped.
  void give_up_released(std::uint64_t released_bytes);
  // Drops what the slowest consumer of the node has released, but for the last `keep_bytes`, where
  // that is worth a call and no other participant does. Gives how many bytes.
  std::uint64_t drop(Claims& claims, std::uint64_t keep_bytes, Runtime::Time now);

 private:
  void give_up_pages(ByteRange positions);
  std::uint64_t drop_pages(ByteRange positions);

  FileIo& io_;
  const Plan& plan_;
  FileTable& files_;
  Mappings mappings_;
  const std::shared_ptr<Consumption> consumption_ = std::make_shared<Consumption>();
  Mutex mutex_;
  // The hold of the mappings on what lies before this position.
  std::uint64_t given_up_bytes_ GUARDED_BY(mutex_) = 0;
};

}  // namespace shardahead
