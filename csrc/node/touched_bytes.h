// touched_bytes: which bytes of the files of one load its consumer has used, in grains of what one
// fault maps. It counts what it is told; what looks is proc_self.h, touched_pages.h and
// loader_progress.h. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/byte_range.h"
#include "base/thread_safety.h"

namespace shardahead {

class TouchedBytes {
 public:
  // A fault maps what is resident of 64 KiB around it: less cannot be told.
  static constexpr std::uint64_t kGrainBytes = 64 * kKiB;

  // Of the files of a plan. A bit for each grain: 4 MiB for 2 TiB.
  explicit TouchedBytes(const std::vector<std::uint64_t>& sizes);

  [[nodiscard]] std::size_t files() const noexcept { return sizes_.size(); }
  [[nodiscard]] std::uint64_t size_bytes(std::size_t file) const { return sizes_.at(file); }

  // What is expected to be touched: the range, and a grain before and behind it.
  void expect(std::size_t file, ByteRange range);
  // Touched, and not expected when that was seen; 0 where nothing ever was expected.
  [[nodiscard]] std::uint64_t unexpected_bytes() const;

  // Every grain that the range lies in, up to the end of the file.
  void mark(std::size_t file, ByteRange range);
  // Sorted and merged, from grain to grain or the end of the file.
  [[nodiscard]] std::vector<ByteRange> ranges(std::size_t file) const;
  // The parts of a range that are not touched yet.
  [[nodiscard]] std::vector<ByteRange> untouched(std::size_t file, ByteRange within) const;
  [[nodiscard]] std::uint64_t bytes() const;
  // The files of which something was touched, in the order in which that began in earnest: some
  // loaders look into all of them before they read the first. One of which little was touched is
  // where that began at all.
  [[nodiscard]] std::vector<std::size_t> order() const;

 private:
  using Grains = std::vector<bool>;

  [[nodiscard]] std::vector<ByteRange> runs(std::size_t file, ByteRange within, bool touched) const
      REQUIRES(mutex_);

  const std::vector<std::uint64_t> sizes_;
  mutable Mutex mutex_;
  // By file; empty until there is something.
  std::vector<Grains> grains_ GUARDED_BY(mutex_);
  std::vector<Grains> expected_ GUARDED_BY(mutex_);
  bool expects_ GUARDED_BY(mutex_) = false;
  std::uint64_t unexpected_bytes_ GUARDED_BY(mutex_) = 0;
  // When each began, by a count of such moments; 0: it did not.
  std::vector<std::uint64_t> began_ GUARDED_BY(mutex_);
  std::uint64_t moments_ GUARDED_BY(mutex_) = 0;
  std::vector<std::uint64_t> file_bytes_ GUARDED_BY(mutex_);
  std::uint64_t bytes_ GUARDED_BY(mutex_) = 0;
};

}  // namespace shardahead
