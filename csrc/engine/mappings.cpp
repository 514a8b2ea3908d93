#include "engine/mappings.h"

namespace shardahead {

std::shared_ptr<MappedFile> Mappings::map(std::size_t file) {
  if (auto mapped = find(file)) return mapped;
  // Without the lock: mmap may wait for the server.
  auto mapped = std::make_shared<MappedFile>(*files_.acquire(file), runtime_);
  std::shared_ptr<MappedFile> first;  // let go, as `mapped` is, without the lock
  const MutexLock lock(mutex_);
  first = mapped_[file].lock();
  if (first) return first;
  mapped_[file] = mapped;
  return mapped;
}

std::shared_ptr<MappedFile> Mappings::find(std::size_t file) const {
  const MutexLock lock(mutex_);
  return mapped_.at(file).lock();
}

}  // namespace shardahead
