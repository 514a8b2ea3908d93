// held_bytes: bytes of a mapped file that a consumer of this process holds: what lies under a
// tensor. As long as it holds them they are neither given up nor dropped. Any thread may let go.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/byte_range.h"
#include "base/process_mark.h"
#include "engine/touched_pages.h"
#include "node/file_table.h"
#include "node/mapped_file.h"
#include "plan/byte_runs.h"
#include "plan/consumption.h"

namespace shardahead {

class HeldBytes {
 public:
  // `position` is where they begin in consumption order. Without a `consumption`, as in a forked
  // child, no one is told that they are held. With `touched` it is looked at what was used of them,
  // of file `number`.
  HeldBytes(std::shared_ptr<MappedFile> file, ByteRange range,
            std::shared_ptr<Consumption> consumption, std::uint64_t position,
            std::shared_ptr<TouchedPages> touched = nullptr, std::size_t number = 0);
  ~HeldBytes();
  HeldBytes(const HeldBytes&) = delete;
  HeldBytes& operator=(const HeldBytes&) = delete;

  [[nodiscard]] std::byte* memory() const noexcept { return file_->memory() + range_.offset; }
  [[nodiscard]] std::uint64_t size_bytes() const noexcept { return range_.length; }
  // Letting go of this takes its time: no one else has the file mapped, so it is unmapped, or many
  // pages are looked at.
  [[nodiscard]] bool is_last() const noexcept {
    return file_.use_count() == 1 || (touched_ && range_.length >= kMiB);
  }

 private:
  std::shared_ptr<MappedFile> file_;
  ByteRange range_;
  std::shared_ptr<Consumption> consumption_;
  std::uint64_t position_;
  std::shared_ptr<TouchedPages> touched_;
  std::size_t number_;
  ProcessMark process_;
};

// Throws std::invalid_argument for a range that is not in the file.
void require_within(const MappedFile& mapped, ByteRange range);

// Throws IoException where a page of another user's file cannot be read. Whether such pages are up
// to date is told to no one: there a page that cannot be read is found by mapping all of them,
// which their use would do, but with a signal. Uses no open file of `files`, nor any mutex of it.
void require_readable(FileIo& io, const FileTable& files, std::size_t file,
                      const MappedFile& mapped, ByteRange range);
// What is looked at of runs whose first byte is at `offset`: no page that lies between them, and of
// them what is `expected`, where that is given.
std::vector<ByteRange> looked_at(std::uint64_t offset, const ByteRuns& runs,
                                 const std::optional<std::vector<ByteRange>>& expected);
// The same by a mapping of its own, so that it touches no page of the consumer's. May open the
// file.
void require_readable_untouched(FileTable& files, std::size_t file, ByteRange range);

}  // namespace shardahead
