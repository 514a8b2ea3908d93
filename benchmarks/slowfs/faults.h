// faults: what goes wrong with which file, by path relative to the mount. Decides about byte
// ranges, does no I/O and never waits. Not thread-safe: used by the request thread alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "link_schedule.h"

namespace slowfs {

struct Stall {
  std::uint64_t offset = 0;
  Nanoseconds delay{0};
};

struct ByteSpan {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

struct FileFaults {
  std::optional<std::uint64_t> eio_offset;
  std::optional<ByteSpan> bad;
  std::optional<Stall> stall;
  std::optional<std::uint64_t> truncated_bytes;

  [[nodiscard]] std::uint64_t size_seen(std::uint64_t true_bytes) const noexcept {
    return std::min(true_bytes, truncated_bytes.value_or(true_bytes));
  }
  // `end` is one past the last byte that the request asks for.
  [[nodiscard]] bool fails(std::uint64_t begin, std::uint64_t end) const noexcept {
    const bool touches_bad = bad && begin < bad->end && end > bad->begin;
    return touches_bad || (eio_offset && end > *eio_offset);
  }
  [[nodiscard]] Nanoseconds delay(std::uint64_t end) const noexcept {
    return stall && end > stall->offset ? stall->delay : Nanoseconds{0};
  }
};

class FaultTable {
 public:
  // Creates an empty entry where there is none.
  FileFaults& of(std::string_view path) {
    const auto found = faults_.find(path);
    return found != faults_.end() ? found->second : faults_[std::string(path)];
  }
  [[nodiscard]] FileFaults find(std::string_view path) const {
    const auto found = faults_.find(path);
    return found != faults_.end() ? found->second : FileFaults{};
  }
  // Keeps the entries: knows() still tells them.
  void clear() noexcept {
    for (auto& [path, faults] : faults_) faults = {};
  }
  // True for ever once a fault was set: the kernel may hold an outdated size of this file.
  [[nodiscard]] bool knows(std::string_view path) const { return faults_.contains(path); }

 private:
  std::map<std::string, FileFaults, std::less<>> faults_;
};

}  // namespace slowfs
