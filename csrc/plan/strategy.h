// strategy: the ways of bringing bytes into the page cache, and how large a step one advise call
// covers on each device. Decides, does no I/O itself. Any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/byte_range.h"
#include "base/thread_safety.h"

namespace shardahead {

enum class Strategy {
  automatic,  // populate where it is seen to work, else fadvise, else pread
  populate,   // one fault in a mapping of huge pages for each 4 MiB, then touch each step
  fadvise,    // posix_fadvise(WILLNEED) in steps, then touch each
  readahead,  // the same through readahead(2)
  pread,      // into a small reused buffer
};

inline constexpr std::array kStrategies = {Strategy::automatic, Strategy::populate,
                                           Strategy::fadvise, Strategy::readahead, Strategy::pread};

const char* to_string(Strategy strategy) noexcept;
std::optional<Strategy> strategy_from(std::string_view name) noexcept;

// An advise call is clipped without a word to max(read_ahead_kb, io_pages) of the mount. This is
// what the kernel starts a mount with; smaller is only seen where someone asked for it.
inline constexpr std::uint64_t kDefaultStepBytes = 128 * kKiB;
inline constexpr std::uint64_t kMinStepBytes = 4 * kKiB;

enum class StepSource { assumed, measured, lowered };

const char* to_string(StepSource source) noexcept;

// Whether one fault brings in a window of kPopulateBytes, or half of it. Kernel and filesystem
// decide that, so it is seen and not known.
enum class Populate { untried, works, fails };

struct Step {
  std::uint64_t bytes = kDefaultStepBytes;
  StepSource source = StepSource::assumed;
  bool advice_works = true;
  Populate populate = Populate::untried;
};

// The step of each device (st_dev) that the plan touches: one for all threads of a process.
class StepTable {
 public:
  [[nodiscard]] Step get(std::uint64_t device) const;
  // True for one caller at a time, and only while there is reason to measure.
  bool begin_measuring(std::uint64_t device);
  // What the measurement gave: the clip in bytes, 0 where advice did nothing at all, or nothing
  // where it could not be made out (someone else was reading the same pages).
  void end_measuring(std::uint64_t device, std::optional<std::uint64_t> clip_bytes);
  // Advised steps came in incomplete: the step was too large, or the filesystem drops advice.
  void report_loss(std::uint64_t device, std::uint64_t step_bytes);
  // So much of a window came. Given up where that is next to nothing time and again.
  void end_populating(std::uint64_t device, ByteRange window, std::uint64_t came_bytes);
  // Given up at once: the call is refused.
  void refuse_populate(std::uint64_t device);
  // The step of the first device, for the report.
  [[nodiscard]] Step first() const;

 private:
  struct Entry {
    std::uint64_t device = 0;
    Step step;
    bool measuring = false;
    std::uint32_t attempts = 0;
    std::uint32_t populated = 0;  // windows
    std::uint32_t failed_eighths = 0;
  };
  static constexpr std::uint32_t kMaxAttempts = 8;
  // Two may be bad luck: another process reads there too, or a page is evicted at once.
  static constexpr std::uint32_t kForgivenWindows = 2;

  Entry& entry(std::uint64_t device) REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::vector<Entry> entries_ GUARDED_BY(mutex_);
};

}  // namespace shardahead
