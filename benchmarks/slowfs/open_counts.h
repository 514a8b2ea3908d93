// open_counts: which files are open, for mounts whose pages go with the last close(). Any thread.
#pragma once

#include <cstdint>
#include <mutex>
#include <unordered_map>

namespace slowfs {

class OpenCounts {
 public:
  void opened(std::uint64_t inode) {
    const std::lock_guard lock(mutex_);
    ++counts_[inode];
  }
  // Whether it was the last one. Of what was never told, as folders, it is not.
  bool closed(std::uint64_t inode) {
    const std::lock_guard lock(mutex_);
    const auto count = counts_.find(inode);
    if (count == counts_.end() || --count->second > 0) return false;
    counts_.erase(count);
    return true;
  }
  [[nodiscard]] bool is_open(std::uint64_t inode) const {
    const std::lock_guard lock(mutex_);
    return counts_.contains(inode);
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<std::uint64_t, std::uint64_t> counts_;
};

}  // namespace slowfs
