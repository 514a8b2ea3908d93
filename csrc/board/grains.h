// grains: the pieces of files in which a board says what is wanted of a block that several want in
// part. Only arithmetic: what is wanted, it does not know. A pure value, the same for all who have
// the same plan. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/byte_range.h"
#include "plan/plan.h"

namespace shardahead {

// A tensor's ends cost a grain each at most, 3 % of 4 MiB; 2 TB have 31 million of them, a bit
// each: 4 MB.
inline constexpr std::uint64_t kGrainBytes = 64 * kKiB;
inline constexpr std::uint64_t kMostGrains = std::uint64_t{1} << 26U;  // 8 MiB

// Numbers of grains: begin .. end - 1.
struct GrainRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

class Grains {
 public:
  // No larger than a block, and larger than kGrainBytes only where there would be too many.
  explicit Grains(const Plan& plan);

  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] std::uint64_t count() const noexcept { return first_.back(); }
  // Those that hold bytes of this range of a file.
  [[nodiscard]] GrainRange under(std::uint32_t file, ByteRange range) const noexcept;
  // What these of a file hold of it; the last may end behind it.
  [[nodiscard]] ByteRange range_of(std::uint32_t file, GrainRange grains) const noexcept;

 private:
  std::uint64_t bytes_;
  std::vector<std::uint64_t> first_;  // of each file, and the number of all
};

}  // namespace shardahead
