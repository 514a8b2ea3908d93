// file_mapping: what Python holds of one file that a weight iterator reads: its bytes through one
// descriptor, and a private mapping of the same file. Any thread.
#pragma once

#include <cstdint>
#include <memory>

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
              std::shared_ptr<MappedFile> mapped);
  // Waits for no server.
  ~FileMapping();
  FileMapping(FileMapping&&) = default;
  FileMapping& operator=(FileMapping&&) = delete;
  FileMapping(const FileMapping&) = delete;
  FileMapping& operator=(const FileMapping&) = delete;

  [[nodiscard]] std::uint64_t size_bytes() const noexcept { return mapped_->size_bytes(); }
  // Reads into `to`, not through the mapping: what cannot be read is an IoException.
  void read(std::uint64_t offset, std::uint64_t length, std::byte* to) const;
  // Gives up the descriptor; the mapping stays.
  void close() noexcept { file_.reset(); }
  [[nodiscard]] HeldByMany<HeldBytes> hold(std::uint64_t offset, std::uint64_t length) const;
  [[nodiscard]] bool is_last() const noexcept { return file_ || mapped_.use_count() == 1; }

 private:
  std::weak_ptr<Engine> engine_;
  bool alone_ = false;
  std::size_t number_ = 0;
  std::shared_ptr<const File> file_;
  std::shared_ptr<MappedFile> mapped_;
};

}  // namespace shardahead
