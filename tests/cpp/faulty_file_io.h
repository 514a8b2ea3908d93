// faulty_file_io: the faulty twin of the system seam: passes every call on to another FileIo, save
// those that a fault of its list applies to. For tests only; no part of the library proper.
// Any thread. Nothing here sleeps: a stalled call waits until the test lets it go.
#pragma once

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "base/thread_safety.h"
#include "node/file_io.h"

namespace shardahead {

// The methods of FileIo; both forms of status() are one operation.
enum class Operation {
  status,
  open,
  close,
  pread,
  fadvise_willneed,
  fadvise_dontneed,
  readahead,
  fault_in_huge_pages,
  fdatasync,
  cachestat,
  mincore,
  map,
  unmap,
  fault_in,
  give_up,
  copy_mapped,
};
inline constexpr std::size_t kOperations = 16;

enum class FaultKind {
  fail,         // returns -errno_value
  short_read,   // pread: at most limit_bytes at a time
  end_of_file,  // pread: the file seems to end at limit_bytes
  lose_advice,  // returns 0 and does nothing
  lie,          // cachestat, mincore: every page is claimed to be resident
  deny,         // cachestat, mincore: no page is claimed to be resident
  stall,        // waits for release_stalled(), then does what was asked
};

struct Fault {
  static constexpr std::uint64_t kForEver = std::numeric_limits<std::uint64_t>::max();

  Operation operation = Operation::pread;
  FaultKind kind = FaultKind::fail;
  // Empty is any file. Initialized here for designated initializers that leave it out.
  std::string path_suffix = {};  // NOLINT(readability-redundant-member-init)
  // Applies to requests that touch bytes of from_offset .. to_offset - 1. Operations without a
  // range ignore both.
  std::uint64_t from_offset = 0;
  std::uint64_t to_offset = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t times = kForEver;  // then the fault is over
  int errno_value = EIO;
  std::uint64_t limit_bytes = 0;
};

class FaultyFileIo : public FileIo {
 public:
  // `inner` must outlive this.
  explicit FaultyFileIo(FileIo& inner) : inner_(inner) {}

  // Of several faults that apply to a call the one added first wins.
  void add(Fault fault);
  void clear_faults();
  // Calls so far, faulty ones included.
  [[nodiscard]] std::uint64_t calls(Operation operation) const;

  // True once `count` calls are stalled at the same time; false after `bound`.
  bool wait_until_stalled(std::uint32_t count, std::chrono::seconds bound) const;
  // Lets every stalled call go on. No call stalls from now on.
  void release_stalled();

  int status(const std::string& path, FileStatus& status) noexcept override;
  int status(int descriptor, FileStatus& status) noexcept override;
  int open(const std::string& path) noexcept override;
  int close(int descriptor) noexcept override;
  std::int64_t pread(int descriptor, std::byte* buffer, ByteRange range) noexcept override;
  int fadvise_willneed(int descriptor, ByteRange range) noexcept override;
  int fadvise_dontneed(int descriptor, ByteRange range) noexcept override;
  int readahead(int descriptor, ByteRange range) noexcept override;
  // Nothing is done where it fails, so no fault can be told from none.
  int fadvise_random(int descriptor) noexcept override { return inner_.fadvise_random(descriptor); }
  int fadvise_normal(int descriptor) noexcept override { return inner_.fadvise_normal(descriptor); }
  int fadvise_sequential(int descriptor) noexcept override {
    return inner_.fadvise_sequential(descriptor);
  }
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
  enum class Outcome { pass, done };  // done: `result` is what the call returns

  // Counts the call, finds its fault, carries out what all operations have in common.
  Outcome meet(Operation operation, const std::string& path, ByteRange range, std::int64_t& result,
               Fault* met = nullptr);
  Outcome meet(Operation operation, int descriptor, ByteRange range, std::int64_t& result,
               Fault* met = nullptr);
  // Of a part of a mapping: its range is that of the file.
  Outcome meet(Operation operation, const std::byte* memory, std::uint64_t length_bytes,
               std::int64_t& result);
  [[nodiscard]] std::string path_of(int descriptor) const;

  FileIo& inner_;
  mutable Mutex mutex_;
  // Two, or a call that stalls would wake those that stall already: in a test that forks then, they
  // might have the mutex.
  mutable Condition one_stalls_;
  Condition released_all_;
  std::vector<Fault> faults_ GUARDED_BY(mutex_);
  std::map<int, std::string> paths_ GUARDED_BY(mutex_);                // of the open descriptors
  std::map<const std::byte*, std::string> mapped_ GUARDED_BY(mutex_);  // by where they begin
  std::array<std::uint64_t, kOperations> calls_ GUARDED_BY(mutex_){};
  std::uint32_t stalled_ GUARDED_BY(mutex_) = 0;
  bool released_ GUARDED_BY(mutex_) = false;
};

}  // namespace shardahead
