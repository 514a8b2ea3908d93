// file_mapping: what Python holds of one file that a weight iterator reads: its bytes through one
// descriptor, and a private mapping of the same file. Any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "engine/engine.h"

namespace shardahead {

// Outlives the prefetch where need be.
class FileMapping {
 public:
  // Without a prefetch. Throws IoException.
  explicit FileMapping(const std::string& path);
  // `mapped` is of `file`, the one of that number in the engine's plan.
  FileMapping(std::weak_ptr<Engine> engine, std::size_t number, std::shared_ptr<const File> file,
              std::shared_ptr<MappedFile> mapped, bool in_part);
  // Waits for no server.
  ~FileMapping();
  FileMapping(FileMapping&&) = default;
  FileMapping& operator=(FileMapping&&) = delete;
  FileMapping(const FileMapping&) = delete;
  FileMapping& operator=(const FileMapping&) = delete;

  [[nodiscard]] std::uint64_t size_bytes() const noexcept { return mapped_->size_bytes(); }
  // Its descriptor, which a read keeps open whoever closes meanwhile: with the GIL, or under the
  // lock of the object where there is none.
  [[nodiscard]] std::shared_ptr<const File> file() const noexcept { return file_; }
  // Whether a prefetch brings in a part of it, so that a read is to bring in nothing ahead of it.
  [[nodiscard]] bool is_in_part() const noexcept { return in_part_; }
  // Gives up the descriptor, as file() is called; the mapping stays. Dropping it may wait.
  [[nodiscard]] std::shared_ptr<const File> close() noexcept { return std::move(file_); }
  // Ranges of the file, as offset and length.
  using Expected = std::optional<std::vector<std::pair<std::uint64_t, std::uint64_t>>>;
  // From the first byte of the runs, which is at `offset`, to the last. Of `expected`, where it is
  // given, is known that it has been brought in.
  [[nodiscard]] HeldByMany<HeldBytes> hold(std::uint64_t offset, const ByteRuns& runs,
                                           const Expected& expected) const;
  [[nodiscard]] bool is_last() const noexcept { return file_ || mapped_.use_count() == 1; }

 private:
  std::weak_ptr<Engine> engine_;
  bool alone_ = false;
  bool in_part_ = false;
  std::size_t number_ = 0;
  std::shared_ptr<const File> file_;
  std::shared_ptr<MappedFile> mapped_;
};

}  // namespace shardahead
