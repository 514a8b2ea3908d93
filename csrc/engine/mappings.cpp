#include "engine/mappings.h"

#include <utility>

#include "base/let_go.h"

namespace shardahead {

std::shared_ptr<MappedFile> Mappings::map(std::size_t file) {
  if (auto mapped = find(file)) return mapped;
  // Without the lock: mmap may wait for the server.
  const auto opened = files_.acquire(file);
  auto mapped = std::make_shared<MappedFile>(*opened, runtime_);
  if (alone_) MappedFile::faults_alone(*opened);
  std::shared_ptr<MappedFile> first;  // let go, as `mapped` is, without the lock
  const MutexLock lock(mutex_);
  first = mapped_[file].lock();
  if (first) return first;
  mapped_[file] = mapped;
  return mapped;
}

bool Mappings::is_mapped(std::size_t file) const noexcept {
  const MutexLock lock(mutex_);
  return !mapped_[file].expired();
}

std::shared_ptr<MappedFile> Mappings::find(std::size_t file) const {
  const MutexLock lock(mutex_);
  return mapped_.at(file).lock();
}

void Mappings::fault_alone() noexcept {
  alone_ = true;
  for (std::size_t file = 0; file < files_.size(); ++file) {
    if (!is_mapped(file)) continue;
    // One that had to be closed meanwhile goes on as it was: its open file cannot be had any more.
    auto opened = files_.opened(file);
    if (!opened) continue;
    MappedFile::faults_alone(*opened);
    if (opened.use_count() == 1) let_go_elsewhere(runtime_, std::move(opened));
  }
}

}  // namespace shardahead
