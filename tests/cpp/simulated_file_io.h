// simulated_file_io: a kernel in memory behind the FileIo seam: files without stored contents, a
// page cache for each, advice that is clipped or dropped, residency that is told or refused.
// It does not model time or eviction: a page that was advised is on its way until some pread waits
// for it or for a page behind it. Any thread.
#pragma once

#include <array>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "faulty_file_io.h"
#include "node/file_io.h"

namespace shardahead::testing {

struct SimulatedKernel {
  std::uint64_t advise_clip_bytes = 1 * kMiB;    // of each call; 0: advice has no effect
  std::uint64_t populate_bytes = 0;              // of each fault; 0: the kernel is too old for it
  bool populate_spoils_advice = false;           // on that descriptor, as on a congested FUSE
  std::uint64_t read_window_bytes = 128 * kKiB;  // what a pread that misses brings in at least
  std::uint64_t drop_every = 0;                  // every n-th advice is dropped; 0 is none
  bool open_empties = false;                     // FUSE without FOPEN_KEEP_CACHE
  bool uncached = false;                         // direct_io: only advice fills the page cache
  bool blind_cachestat = false;                  // sees no page, as on an overlay
  int cachestat_errno = 0;                       // refused with this, or 0
  bool owner = true;                             // else mincore claims every page
};

struct Request {
  Operation operation;
  std::string path;
  ByteRange range;
};

class SimulatedFileIo final : public FileIo {
 public:
  explicit SimulatedFileIo(SimulatedKernel kernel = {}) : kernel_(kernel) {}

  void add_file(const std::string& path, std::uint64_t size_bytes, std::uint64_t device = 1);
  void truncate(const std::string& path, std::uint64_t size_bytes);
  // As if another process had read the range: what it brings in is not counted as served.
  void make_resident(const std::string& path, ByteRange range);
  // As if the storage could not read it: what was asked for stays in the page cache, and no pread
  // of it succeeds.
  void spoil(const std::string& path, ByteRange range);
  // Called after each advice, without the lock: another process at work meanwhile.
  void after_advice(std::function<void(const std::string& path, ByteRange)> hook);

  [[nodiscard]] std::uint64_t resident_bytes(const std::string& path) const;
  // Bytes that came from the storage on our account.
  [[nodiscard]] std::uint64_t served_bytes() const {
    const std::lock_guard lock(mutex_);
    return served_bytes_;
  }
  // How often the page that was fetched most often came from the storage.
  [[nodiscard]] std::uint32_t most_loads_of_a_page() const;
  [[nodiscard]] std::vector<Request> requests() const;
  [[nodiscard]] std::uint64_t calls(Operation operation) const;
  [[nodiscard]] std::size_t open_descriptors() const {
    const std::lock_guard lock(mutex_);
    return open_.size();
  }
  // True once no descriptor is open; false after `bound`.
  bool wait_until_closed(std::chrono::seconds bound) const;
  // True once something was asked for from this offset on, and not only looked at; false after
  // `bound`.
  bool wait_until_requested(const std::string& path, std::uint64_t offset,
                            std::chrono::seconds bound) const;

  // What a read finds there.
  static std::byte content(const std::string& path, std::uint64_t offset);

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
  // Its files cannot be mapped, as those of some filesystems.
  int map(int, std::uint64_t, MappedFor, std::byte*&) noexcept override { return -ENODEV; }
  int unmap(std::byte*, std::uint64_t) noexcept override { return -EINVAL; }
  int fault_in(std::byte*, std::uint64_t) noexcept override { return -EINVAL; }
  int give_up(std::byte*, std::uint64_t) noexcept override { return -EINVAL; }
  std::int64_t copy_mapped(const std::byte*, std::uint64_t, std::byte*) noexcept override {
    return -EINVAL;
  }

 private:
  enum class PageState : std::uint8_t { absent, in_flight, up_to_date, failed };
  struct Page {
    PageState state = PageState::absent;
    std::uint8_t loads = 0;
  };
  struct SimulatedFile {
    std::string path;
    std::uint64_t size_bytes = 0;
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    std::vector<Page> pages;
  };

  int advise(Operation operation, int descriptor, ByteRange range);
  void describe(const SimulatedFile& file, FileStatus& status) const;
  void load(SimulatedFile& file, ByteRange range);
  void record(Operation operation, const std::string& path, ByteRange range = {});
  SimulatedFile* find(const std::string& path);
  SimulatedFile* find(int descriptor);
  template <typename Counts>
  std::int64_t count_pages(const SimulatedFile& file, ByteRange range, Counts counts) const;

  const SimulatedKernel kernel_;
  mutable std::mutex mutex_;  // guards everything below
  mutable std::condition_variable changed_;
  std::deque<SimulatedFile> files_;
  std::map<int, SimulatedFile*> open_;
  std::set<int> spoiled_;
  std::set<int> random_;        // without readahead
  int next_descriptor_ = 1000;  // far from real ones, so that a mix-up shows
  std::uint64_t advices_ = 0;
  std::uint64_t served_bytes_ = 0;
  std::vector<Request> requests_;
  std::array<std::uint64_t, kOperations> calls_{};
  std::function<void(const std::string&, ByteRange)> after_advice_;
};

}  // namespace shardahead::testing
