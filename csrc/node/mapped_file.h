// mapped_file: a file mapped privately, as safetensors maps it: readable, and writable without a
// change to the file. Says nothing about which of its bytes are in the page cache. Any thread.
#pragma once

#include <cstddef>
#include <memory>

#include "node/mapping.h"

namespace shardahead {

class MappedFile : public Mapping {
 public:
  // The whole file, as long as it is now. Throws IoException. `runtime` has the thread on which it
  // ends.
  explicit MappedFile(const File& file, Runtime& runtime = system_runtime())
      : Mapping(file, MappedFor::use), runtime_(runtime) {}

  using Mapping::memory;

  // Where nothing brings in what is mapped of it but faults, or reads one after the other: the
  // kernel then reads as far ahead of them as it does for torch, and with it the safetensors
  // library, which ask for it as well.
  static void faults_alone(const File& file) noexcept;

  // Faults in every page of the range, to be read. 0, or -errno: -EFAULT where one cannot be read,
  // -EINVAL before Linux 5.14.
  [[nodiscard]] int bring_in(ByteRange range) const noexcept;
  // As that of a mapping.
  static void let_go(std::shared_ptr<MappedFile> mapped) noexcept;
  // Gives up this process's hold on the whole pages of the range, so that they can be dropped.
  // What was written to them is lost: no one may hold them any more.
  void give_up(ByteRange range) const noexcept;

 private:
  Runtime& runtime_;
};

}  // namespace shardahead
