#include "test_support.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <numeric>
#include <stdexcept>

namespace shardahead::testing {

TemporaryFolder::TemporaryFolder(bool in_shared_memory) {
  if (in_shared_memory) {
    folder_ = "/dev/shm/shardahead_test_XXXXXX";
    if (::mkdtemp(folder_.data()) != nullptr) return;
  }
  folder_ = (std::filesystem::temp_directory_path() / "shardahead_test_XXXXXX").string();
  if (::mkdtemp(folder_.data()) == nullptr) throw std::runtime_error("mkdtemp " + folder_);
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

std::string TemporaryFolder::write(const std::string& name, std::uint64_t size_bytes) const {
  std::ofstream file(path(name), std::ios::binary);
  const std::vector<char> zeros(size_bytes);
  file.write(zeros.data(), static_cast<std::streamsize>(zeros.size()));
  file.close();
  if (!file) throw std::runtime_error("cannot write " + path(name));
  return path(name);
}

SimulatedCheckpoint::SimulatedCheckpoint(const std::vector<std::uint64_t>& sizes_bytes,
                                         SimulatedKernel simulated)
    : kernel(immortal<SimulatedFileIo>(simulated)), io(immortal<FaultyFileIo>(kernel)) {
  for (std::size_t file = 0; file < sizes_bytes.size(); ++file) {
    paths_.push_back(path(file));
    kernel.add_file(paths_.back(), sizes_bytes[file]);
  }
}

void SimulatedCheckpoint::open(PlanOptions options, std::size_t max_open_files) {
  files = std::make_shared<FileTable>(io, paths_, max_open_files);
  std::vector<PlannedFile> planned;
  for (std::size_t file = 0; file < files->size(); ++file) {
    planned.push_back({files->size_bytes(file), std::nullopt});
  }
  plan = std::make_shared<const Plan>(std::move(planned), options);
}

std::unique_ptr<Engine> SimulatedCheckpoint::start(const EngineOptions& options) const {
  return std::make_unique<Engine>(io, plan, files,
                                  std::make_unique<StaticClaims>(plan, whole_share()), options);
}

std::string SimulatedCheckpoint::path(std::size_t file) { return std::to_string(file) + ".shard"; }

std::vector<std::uint32_t> SimulatedCheckpoint::whole_share() const {
  return share_of(*plan, Partition::block, 0, 1);
}

std::uint64_t SimulatedCheckpoint::resident_bytes() const {
  return std::accumulate(paths_.begin(), paths_.end(), std::uint64_t{0},
                         [&](std::uint64_t sum, const std::string& each) {
                           return sum + kernel.resident_bytes(each);
                         });
}

}  // namespace shardahead::testing
