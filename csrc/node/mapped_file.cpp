#include "node/mapped_file.h"

#include <utility>

namespace shardahead {

void MappedFile::faults_alone(const File& file) noexcept {
  file.io().fadvise_sequential(file.descriptor());
}

int MappedFile::bring_in(ByteRange range) const noexcept {
  if (range.empty()) return 0;
  const std::uint64_t begin = align_down(range.offset, page_bytes());
  return io().fault_in(memory() + begin, align_up(range.end(), page_bytes()) - begin);
}

void MappedFile::let_go(std::shared_ptr<MappedFile> mapped) noexcept {
  if (!mapped) return;
  Runtime& runtime = mapped->runtime_;
  Mapping::let_go(std::move(mapped), runtime);
}

void MappedFile::give_up(ByteRange range) const noexcept {
  const std::uint64_t begin = align_up(range.offset, page_bytes());
  // Behind the last byte of the file its last page belongs to no one else.
  const std::uint64_t end = range.end() >= size_bytes() ? align_up(size_bytes(), page_bytes())
                                                        : align_down(range.end(), page_bytes());
  if (begin < end) io().give_up(memory() + begin, end - begin);
}

}  // namespace shardahead
