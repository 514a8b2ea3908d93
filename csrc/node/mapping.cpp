#include "node/mapping.h"

#include <utility>

#include "base/let_go.h"

namespace shardahead {

Mapping::Mapping(const File& file, MappedFor use)
    : io_(file.io()), size_bytes_(file.status().size_bytes) {
  if (size_bytes_ == 0) return;
  const int result = io_.map(file.descriptor(), size_bytes_, use, memory_);
  if (result < 0) throw IoException(file.error(-result, "mmap", 0));
}

Mapping::~Mapping() {
  if (memory_ != nullptr) io_.unmap(memory_, size_bytes_);
}

// The last to unmap an open file closes it, and NFS waits for the answer.
void Mapping::let_go(std::shared_ptr<const Mapping> mapping, Runtime& runtime) noexcept {
  if (mapping.use_count() != 1) return;
  if (mapping->memory_ != nullptr) {
    mapping->io_.give_up(mapping->memory_, align_up(mapping->size_bytes_, page_bytes()));
  }
  let_go_elsewhere(runtime, std::move(mapping));
}

}  // namespace shardahead
