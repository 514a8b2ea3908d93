// test_support: what several suites share: objects that outlive detached threads, folders and files
// that remove themselves, and the bound on waiting that no healthy run comes near.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "faulty_file_io.h"
#include "node/file_table.h"
#include "plan/plan.h"
#include "simulated_file_io.h"

namespace shardahead::testing {

// Only keeps a broken test from hanging; nothing is judged by it.
inline constexpr std::chrono::seconds kHangBound{60};

// Never destroyed: the threads of an engine may use their FileIo after the engine is gone.
template <typename T, typename... Args>
T& immortal(Args&&... args) {
  static auto* const kept = new std::vector<std::shared_ptr<T>>;
  kept->push_back(std::make_shared<T>(std::forward<Args>(args)...));
  return *kept->back();
}

// A folder under the system's temporary folder, removed with everything in it.
class TemporaryFolder {
 public:
  // In shared memory where that is asked for, and there is any.
  explicit TemporaryFolder(bool in_shared_memory = false);
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  [[nodiscard]] std::string path(const std::string& name) const { return folder_ + "/" + name; }
  // Writes a file of this size to the disk and gives its path.
  std::string write(const std::string& name, std::uint64_t size_bytes) const;

 private:
  std::string folder_;
};

// Files named "0.shard", "1.shard", ... in a simulated kernel, behind a faulty seam.
class SimulatedCheckpoint {
 public:
  explicit SimulatedCheckpoint(const std::vector<std::uint64_t>& sizes_bytes,
                               SimulatedKernel kernel = {});

  void open(PlanOptions options = {}, std::size_t max_open_files = 64);
  std::unique_ptr<Engine> start(const EngineOptions& options) const;

  [[nodiscard]] static std::string path(std::size_t file);
  [[nodiscard]] std::vector<std::uint32_t> whole_share() const;
  [[nodiscard]] std::uint64_t resident_bytes() const;

  SimulatedFileIo& kernel;
  FaultyFileIo& io;
  std::shared_ptr<FileTable> files;
  std::shared_ptr<const Plan> plan;

 private:
  std::vector<std::string> paths_;
};

}  // namespace shardahead::testing
