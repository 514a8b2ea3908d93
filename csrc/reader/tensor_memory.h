// tensor_memory: anonymous memory of its own for the bytes of a tensor, or of some small ones read
// at once, each of which begins at a multiple of 64 bytes. Reads nothing itself. Any thread. It
// asks the system for memory past the seam: no file lies behind it, so no server, no clock and no
// fault but the want of memory, which anyone can bring about by asking for too much.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace shardahead {

inline constexpr std::uint64_t kTensorAlignBytes = 64;

class TensorMemory {
 public:
  // For tensors of these lengths that adjoin in the file. Throws std::bad_alloc.
  explicit TensorMemory(const std::vector<std::uint64_t>& lengths_bytes);
  ~TensorMemory();
  TensorMemory(const TensorMemory&) = delete;
  TensorMemory& operator=(const TensorMemory&) = delete;

  // Where the file's bytes, of all tensors together, are read to.
  [[nodiscard]] std::byte* landing() const noexcept { return memory_ + landing_offset_; }
  // Moves those that have been read from there to their aligned places. Once.
  void spread() noexcept;

  [[nodiscard]] std::byte* tensor(std::size_t index) const noexcept {
    return memory_ + places_[index].offset;
  }
  [[nodiscard]] std::uint64_t length_bytes(std::size_t index) const noexcept {
    return places_[index].length;
  }
  [[nodiscard]] std::size_t count() const noexcept { return places_.size(); }
  // What a reader has to allot for such tensors.
  [[nodiscard]] static std::uint64_t needed_bytes(
      const std::vector<std::uint64_t>& lengths_bytes) noexcept;

 private:
  struct Place {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
  };

  std::vector<Place> places_;
  std::uint64_t size_bytes_ = 0;
  std::uint64_t landing_offset_ = 0;
  std::byte* memory_ = nullptr;
};

}  // namespace shardahead
