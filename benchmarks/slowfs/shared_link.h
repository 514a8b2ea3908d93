// shared_link: from when on a link is free, kept in a file that several processes map. Decides
// nothing. One word, changed at one stroke: whoever is killed in between leaves it as it must be.
// Any thread.
#pragma once

#include <atomic>
#include <string>

#include "link_schedule.h"

namespace slowfs {

class SharedLink {
 public:
  // The file is made where there is none. Throws std::system_error.
  explicit SharedLink(const std::string& path);
  ~SharedLink();
  SharedLink(const SharedLink&) = delete;
  SharedLink& operator=(const SharedLink&) = delete;

  [[nodiscard]] FreeFrom& free_from() const noexcept { return *free_from_; }

 private:
  FreeFrom* free_from_;
};

}  // namespace slowfs
