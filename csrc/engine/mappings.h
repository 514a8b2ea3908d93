// mappings: the files of a plan as the consumers of this process have mapped them: each once, for
// as long as anyone has it. Any thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

#include "base/runtime.h"
#include "base/thread_safety.h"
#include "node/file_table.h"
#include "node/mapped_file.h"

namespace shardahead {

class Mappings {
 public:
  // Both must outlive it; mappings that are let go end on a thread of `runtime`.
  Mappings(FileTable& files, Runtime& runtime)
      : files_(files), runtime_(runtime), mapped_(files.size()) {}

  // Throws IoException where the file cannot be opened or mapped, std::out_of_range where there is
  // no such file. May wait for the file's server.
  std::shared_ptr<MappedFile> map(std::size_t file);
  // Nothing where no one has it mapped.
  [[nodiscard]] std::shared_ptr<MappedFile> find(std::size_t file) const;
  // From now on nothing is brought in for those who have them, or map a file later.
  void fault_alone() noexcept;

 private:
  [[nodiscard]] bool is_mapped(std::size_t file) const noexcept;

  FileTable& files_;
  Runtime& runtime_;
  std::atomic<bool> alone_ = false;
  mutable Mutex mutex_;
  std::vector<std::weak_ptr<MappedFile>> mapped_ GUARDED_BY(mutex_);  // by file
};

}  // namespace shardahead
