#include "base/folder_names.h"

#include <dirent.h>

#include <memory>
#include <utility>

namespace shardahead {
namespace {

struct CloseFolder {
  void operator()(DIR* folder) const noexcept { ::closedir(folder); }
};

}  // namespace

std::vector<std::string> folder_names(const std::string& folder, std::size_t most) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, CloseFolder> opened(::opendir(folder.c_str()));
  while (opened && names.size() < most) {
    // Its stream is this thread's own.
    const dirent* const entry = ::readdir(opened.get());  // NOLINT(concurrency-mt-unsafe)
    if (entry == nullptr) break;
    std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(std::move(name));
  }
  return names;
}

}  // namespace shardahead
