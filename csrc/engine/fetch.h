// fetch: brings one range of one file into the page cache and waits until it is there. The path of
// the bytes. It owns no threads and decides nothing about order; the engine's workers call it, and
// so does a consumer that cannot wait for them. One Fetcher per thread; what they share is passed
// in.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "base/error.h"
#include "node/file_io.h"
#include "node/file_table.h"
#include "plan/strategy.h"

namespace shardahead {

struct FetchResult {
  std::uint64_t resident_bytes = 0;  // were in the page cache before
  std::uint64_t read_bytes = 0;      // were brought in
  std::uint64_t lost_bytes = 0;      // of these: advised, did not arrive, so read with pread
  std::uint64_t failed_bytes = 0;
  std::uint64_t faulted_bytes = 0;  // seen to come by faults, before it was waited for
  bool cancelled = false;           // the rest was left alone
  bool advice_dropped = false;      // much of it: the file had better be opened anew
  bool advice_refused = false;      // some of it, with an error
  bool residency_known = true;      // else what was read may have been resident
  std::optional<IoError> error;     // the first
};

class Fetcher {
 public:
  // `cancelled` is looked at between system calls, never during one. All references must outlive
  // the fetcher.
  Fetcher(FileIo& io, StepTable& steps, Strategy strategy, const std::atomic<bool>& cancelled);

  // Range is cut to whole pages outwards. A file found shorter than `range` gives ENODATA.
  FetchResult fetch(const File& file, ByteRange range);

  // The same for a range of any length, in pieces, the next one advised before the last is waited
  // for, and for one who uses the bytes: every page is looked at, not only those that are touched.
  // Stops at the first error.
  FetchResult fetch_pipelined(const File& file, ByteRange range);

  // Reads every byte, resident or not: finds the one that cannot be read.
  FetchResult read_plainly(const File& file, ByteRange range);

 private:
  // The pages between those that are touched: a prefetch may take them on trust, which saves 0.02 s
  // of processor time per GiB; who uses them may not.
  enum class Untouched { trusted, looked_at };

  FetchResult fetch(const File& file, ByteRange range, Untouched untouched);
  FetchResult fetch_once(const File& file, ByteRange range, std::optional<std::uint64_t> resident);
  // Where nothing of it is there, and no one has asked for any of it, `absent`.
  void advise_and_touch(const File& file, ByteRange range, bool absent, FetchResult& result);
  // Has the whole range on its way: each window of kPopulateBytes by one fault where the strategy
  // allows that and it works, the rest by advice.
  bool start_reads(const File& file, ByteRange range, std::uint64_t step_bytes, bool absent,
                   FetchResult& result);
  bool bring_in_window(const File& file, ByteRange window, bool absent, FetchResult& result);
  bool fault_in_once(const File& file, ByteRange window);
  bool advise(const File& file, ByteRange range, std::uint64_t step_bytes, FetchResult& result);
  bool touch(const File& file, std::uint64_t offset, FetchResult& result);
  // Reads with pread what was advised and did not come.
  void fill_gaps(const File& file, ByteRange range, std::uint64_t step_bytes, FetchResult& result);
  // Reads with pread what is not up to date: pages on their way, and those whose read failed.
  void wait_for_all(const File& file, ByteRange range, std::uint64_t step_bytes,
                    FetchResult& result);
  bool read(const File& file, ByteRange range, FetchResult& result);
  bool measure_step(const File& file, ByteRange range);
  bool advise_once(const File& file, ByteRange range, int& errno_value);
  [[nodiscard]] std::optional<std::uint64_t> resident(const File& file, ByteRange range);
  // The same with the pages that are on their way, or nothing.
  [[nodiscard]] std::optional<std::uint64_t> existing(const File& file, ByteRange range);
  [[nodiscard]] bool stop() const { return cancelled_.load(std::memory_order_relaxed); }

  FileIo& io_;
  StepTable& steps_;
  Strategy strategy_;
  const std::atomic<bool>& cancelled_;
  std::vector<std::byte> buffer_;  // allocated at the first pread, then reused: stays in the cache
};

}  // namespace shardahead
