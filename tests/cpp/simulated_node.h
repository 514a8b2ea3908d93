// simulated_node: the page cache of a node on a virtual clock, and the storage behind it: one link
// that all share, with a bandwidth and a round trip. Where memory is limited it evicts what was
// used longest ago, mapped pages last. Pages come and go in folios. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "faulty_file_io.h"
#include "node/file_io.h"
#include "simulation_trace.h"
#include "virtual_threads.h"

namespace shardahead::testing {

// What the mount does with pages: FUSE without FOPEN_KEEP_CACHE empties a file's at every open(),
// and with direct_io only mappings and advice fill them.
enum class SimulatedMount { keeps, emptied_by_open, uncached };

struct SimulatedNodeOptions {
  SimulatedMount mount = SimulatedMount::keeps;
  std::uint64_t bytes_per_second = 500 * kMiB;
  std::chrono::nanoseconds round_trip = std::chrono::milliseconds(1);
  std::uint64_t memory_bytes = 0;  // for page cache; 0: no limit
  std::uint64_t advise_clip_bytes = 1 * kMiB;
  std::uint64_t populate_bytes = 0;  // of each fault; 0: the kernel is too old for it
  std::uint64_t read_window_bytes = 128 * kKiB;
  std::uint32_t drop_advice_percent = 0;
  int cachestat_errno = 0;  // refused with this, or 0
  bool owner = true;        // else mincore claims every page
  // What is read of these bytes takes so many times as long.
  std::uint32_t slow_file = 0;
  ByteRange slow_range = {};
  std::uint32_t slow_factor = 1;
};

class PageCache {
 public:
  static constexpr std::uint64_t kFolioBytes = 16 * kKiB;
  using Time = Runtime::Time;

  PageCache(const SimulatedNodeOptions& options, std::vector<std::uint64_t> sizes_bytes);

  [[nodiscard]] const SimulatedNodeOptions& options() const noexcept { return options_; }
  [[nodiscard]] std::size_t files() const noexcept { return sizes_bytes_.size(); }
  [[nodiscard]] std::uint64_t size_bytes(std::uint32_t file) const { return sizes_bytes_[file]; }

  // Queues reads of what is absent. Returns when all of the range is there.
  Time load(std::uint32_t file, ByteRange range, Time now);
  // Past the page cache.
  Time load_directly(std::uint32_t file, ByteRange range, Time now);
  // All of a file goes, as at an open() on some mounts.
  void empty(std::uint32_t file);
  // From now on it is counted how often each folio is loaded.
  void begin_counting() { counted_.assign(folios_.size(), 0); }
  [[nodiscard]] std::uint32_t most_counted_loads() const;
  // It was used: of what is not mapped it is evicted last.
  void use(std::uint32_t file, ByteRange range);
  void map(std::uint32_t file, ByteRange range, int change);
  // Whole folios that are there and not mapped.
  void drop(std::uint32_t file, ByteRange range, Time now);
  [[nodiscard]] std::int64_t existing_pages(std::uint32_t file, ByteRange range) const;
  [[nodiscard]] std::int64_t arrived_pages(std::uint32_t file, ByteRange range, Time now) const;
  // Whether all of the range was there, or on its way, at some time.
  [[nodiscard]] bool has_come(std::uint32_t file, ByteRange range) const;
  [[nodiscard]] bool is_there(std::uint32_t file, ByteRange range) const;
  // The first folio of the range of which that is true, if any.
  [[nodiscard]] std::optional<ByteRange> first_come(std::uint32_t file, ByteRange range) const;
  [[nodiscard]] std::uint64_t read_bytes() const noexcept { return loads_ * kFolioBytes; }
  [[nodiscard]] std::uint64_t evicted_bytes() const noexcept { return evictions_ * kFolioBytes; }
  [[nodiscard]] std::uint64_t first_loaded_bytes() const noexcept {
    return first_loads_ * kFolioBytes;
  }

 private:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  struct Folio {
    Time ready;  // of the last load
    bool present = false;
    bool loaded_before = false;
    std::uint16_t mapped = 0;
    std::uint32_t older = kNone;
    std::uint32_t newer = kNone;
  };
  struct Folios {
    std::uint32_t begin;
    std::uint32_t end;
  };

  [[nodiscard]] Folios folios_of(std::uint32_t file, ByteRange range) const;
  template <typename Counts>
  [[nodiscard]] std::int64_t count_pages(std::uint32_t file, ByteRange range, Counts counts) const;
  [[nodiscard]] Time occupy_link(std::uint32_t file, std::uint64_t offset, std::uint64_t bytes,
                                 Time now);
  void link_newest(std::uint32_t folio);
  void unlink(std::uint32_t folio);
  void remove(std::uint32_t folio);
  void make_room(Time now);

  SimulatedNodeOptions options_;
  std::vector<std::uint64_t> sizes_bytes_;
  std::vector<std::uint32_t> first_folios_;  // of each file, and of one behind the last
  std::vector<Folio> folios_;
  std::vector<std::uint32_t> counted_;  // loads of each, while they are counted
  std::uint32_t oldest_ = kNone;
  std::uint32_t newest_ = kNone;
  std::uint64_t present_ = 0;
  std::uint64_t loads_ = 0;
  std::uint64_t first_loads_ = 0;
  std::uint64_t evictions_ = 0;
  Time link_free_;
};

// The seam of one rank to that node. A call takes virtual time; after a death it fails at once.
class RankFileIo final : public FileIo {
 public:
  RankFileIo(VirtualThreads& threads, PageCache& cache, Trace& trace, std::uint32_t rank,
             std::uint64_t seed)
      : threads_(threads), cache_(cache), trace_(trace), rank_(rank), random_(seed) {}

  // From now on buffers are filled with what a read finds there, which takes real time, and each
  // open() is told.
  void fill_buffers(std::function<void(std::uint32_t file)> opens) { opens_ = std::move(opens); }
  // Bytes that came from the storage past the page cache.
  [[nodiscard]] std::uint64_t direct_bytes() const noexcept { return direct_bytes_; }
  // Descriptors and mappings that it has.
  [[nodiscard]] std::size_t held() const noexcept { return open_.size() + mapped_.size(); }
  // That call, counted from now, takes 30 s.
  void stall_at(std::uint64_t call) { stalls_.insert(calls_ + call); }
  [[nodiscard]] static std::string path(std::uint32_t file) {
    return std::to_string(file) + ".shard";
  }

  int status(const std::string& path, FileStatus& status) noexcept override;
  int status(int descriptor, FileStatus& status) noexcept override;
  int open(const std::string& path) noexcept override;
  int close(int descriptor) noexcept override;
  std::int64_t pread(int descriptor, std::byte* buffer, ByteRange range) noexcept override;
  int fadvise_willneed(int descriptor, ByteRange range) noexcept override;
  int fadvise_dontneed(int descriptor, ByteRange range) noexcept override;
  int readahead(int descriptor, ByteRange range) noexcept override;
  int fadvise_random(int descriptor) noexcept override;
  // Nothing is read ahead of a fault here.
  int fadvise_normal(int descriptor) noexcept override;
  int fadvise_sequential(int) noexcept override { return 0; }
  int fault_in_huge_pages(int descriptor, ByteRange range) noexcept override;
  int fdatasync(int descriptor) noexcept override;
  std::int64_t cachestat(int descriptor, ByteRange range) noexcept override;
  std::int64_t mincore(int descriptor, ByteRange range) noexcept override;
  int map(int descriptor, std::uint64_t length_bytes, MappedFor use,
          std::byte*& memory) noexcept override;
  int unmap(std::byte* memory, std::uint64_t length_bytes) noexcept override;
  int fault_in(std::byte* pages, std::uint64_t length_bytes) noexcept override;
  int give_up(std::byte* pages, std::uint64_t length_bytes) noexcept override;
  std::int64_t copy_mapped(const std::byte* from, std::uint64_t length_bytes,
                           std::byte* to) noexcept override;

 private:
  struct Mapped {
    std::uint32_t file = 0;
    const std::byte* begin = nullptr;
  };

  // Takes the time of a call.
  void take_time();
  [[nodiscard]] std::optional<Mapped> mapped(const std::byte* memory) const;
  // Of the page cache, once it is there; false where all is being buried.
  bool wait_for(std::uint32_t file, ByteRange range, ByteRange window);
  // False where the call fails: with -EIO if all is being buried, with -EBADF otherwise.
  bool begin(const char* operation, int descriptor, ByteRange range, std::uint32_t& file);
  [[nodiscard]] int refusal() const { return threads_.burying() ? -EIO : -EBADF; }
  int advise(const char* operation, int descriptor, ByteRange range);

  VirtualThreads& threads_;
  PageCache& cache_;
  Trace& trace_;
  std::uint32_t rank_;
  Random random_;
  std::map<int, std::uint32_t> open_;  // descriptor, file
  std::set<int> without_readahead_;
  int next_descriptor_ = 1000;
  std::uint64_t calls_ = 0;
  std::set<std::uint64_t> stalls_;
  std::map<const std::byte*, Mapped> mapped_;  // by where they begin
  std::function<void(std::uint32_t)> opens_;   // nothing: buffers are not filled
  std::uint64_t direct_bytes_ = 0;
};

}  // namespace shardahead::testing
