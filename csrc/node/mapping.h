// mapping: a file in memory, as far as all mappings of files are alike: how one is made, and how it
// ends. What it is for, mapped_file and mapped_source know; which of its bytes are in the page
// cache, no one here does. Any thread.
#pragma once

#include <cstddef>
#include <memory>

#include "base/runtime.h"
#include "node/file_table.h"

namespace shardahead {

class Mapping {
 public:
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  [[nodiscard]] std::uint64_t size_bytes() const noexcept { return size_bytes_; }

  // Ends it without waiting for anyone, if no one else has it. Its pages can be dropped then.
  static void let_go(std::shared_ptr<const Mapping> mapping, Runtime& runtime) noexcept;

 protected:
  // The whole file, as long as it is now; nothing of an empty one. Throws IoException.
  Mapping(const File& file, MappedFor use);
  ~Mapping();

  [[nodiscard]] FileIo& io() const noexcept { return io_; }
  [[nodiscard]] std::byte* memory() const noexcept { return memory_; }

 private:
  FileIo& io_;
  std::byte* memory_ = nullptr;
  std::uint64_t size_bytes_ = 0;
};

}  // namespace shardahead
