#include "engine/touched_pages.h"

#include <exception>
#include <utility>

namespace shardahead {
namespace {

constexpr const char* kPageMapPath = "/proc/self/pagemap";

}  // namespace

TouchedPages::TouchedPages(const std::vector<std::uint64_t>& sizes, const std::string& root)
    : bytes_(sizes),
      can_look_(PageMap::tells(root + kPageMapPath)),
      pages_(root + kPageMapPath),
      mapped_(sizes.size()) {}

std::uint64_t TouchedPages::held() const {
  const MutexLock lock(mutex_);
  return held_;
}

void TouchedPages::hold(std::size_t file, const std::shared_ptr<MappedFile>& mapped) {
  const MutexLock lock(mutex_);
  mapped_.at(file) = mapped;
  ++held_;
}

void TouchedPages::release(std::size_t file, const MappedFile& mapped, ByteRange range) noexcept {
  const MutexLock lock(mutex_);
  --held_;
  try {
    look_at(file, mapped, range);
  } catch (const std::exception&) {
    return;
  }
}

void TouchedPages::look() {
  std::vector<std::shared_ptr<MappedFile>> mapped;
  {
    const MutexLock lock(mutex_);
    for (std::size_t file = 0; file < mapped_.size(); ++file) {
      mapped.push_back(mapped_[file].lock());
      if (mapped.back()) look_at(file, *mapped.back(), {0, mapped.back()->size_bytes()});
    }
  }
  // Whoever held them may have let go meanwhile: then they end here.
  for (auto& each : mapped) MappedFile::let_go(std::move(each));
}

void TouchedPages::look_at(std::size_t file, const MappedFile& mapped, ByteRange range) {
  if (range.empty() || !can_look_) return;
  const auto memory = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(mapped.memory()));
  for (const ByteRange& open : bytes_.untouched(file, range)) {
    const std::uint64_t begin = align_down(open.offset, page_bytes());
    const std::uint64_t end = align_up(open.end(), page_bytes());
    for (const ByteRange& found : pages_.touched(memory + begin, memory + end)) {
      bytes_.mark(file, {found.offset - memory, found.length});
    }
  }
}

}  // namespace shardahead
