// fetch: brings ranges of one file into the page cache and waits until they are there. The path of
// the bytes. It owns no threads and decides nothing about order; the engine's workers call it, and
// so does a consumer that cannot wait for them. One Fetcher per thread; what they share is passed
// in.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "engine/fetch_result.h"
#include "node/file_io.h"
#include "node/file_table.h"
#include "plan/strategy.h"

namespace shardahead {

class Fetcher {
 public:
  // `cancelled` is looked at between system calls, never during one. All references must outlive
  // the fetcher.
  Fetcher(FileIo& io, StepTable& steps, Strategy strategy, const std::atomic<bool>& cancelled);

  // Range is cut to whole pages outwards. A file found shorter than `range` gives ENODATA.
  FetchResult fetch(const File& file, ByteRange range);
  // Whether what lies behind a range is to come as well, so that readahead there is of use.
  enum class Beyond { wanted, unwanted };

  // The same for several, in order, that share no page. All are on their way before the first is
  // waited for, so that they cost one round trip and not one each. Ends with the first that is
  // cancelled. `before_reads`, if any, is called once they have been looked at, where something is
  // missing.
  std::vector<FetchResult> fetch(const File& file, const std::vector<ByteRange>& ranges,
                                 Beyond beyond, const std::function<void()>& before_reads = {});

  // The same for a range of any length, in pieces, the next one advised before the last is waited
  // for, and for one who uses the bytes: every page is looked at, not only those that are touched.
  // Stops at the first error.
  FetchResult fetch_for_use(const File& file, ByteRange range);

  // Reads every byte, resident or not: finds the one that cannot be read.
  FetchResult read_plainly(const File& file, ByteRange range);

 private:
  // The pages between those that are touched: a prefetch may take them on trust, which saves 0.02 s
  // of processor time per GiB; who uses them may not.
  enum class Untouched { trusted, looked_at };

  // A range between its beginning and its end.
  struct Fetch {
    ByteRange range;
    std::optional<std::uint64_t> resident_bytes;  // before; nothing where that is not known
    std::uint64_t step_bytes = 0;                 // of what was started; 0: nothing was
    FetchResult result = {};
  };

  // Looks at what is there of it.
  Fetch look_at(const File& file, ByteRange range);
  // Has what is missing on its way, in the way that works on this device; does not wait for it.
  void start(const File& file, Fetch& fetch);
  // Waits for it, tries once more with pread after an error, and counts what was there before.
  FetchResult finish(const File& file, Fetch fetch, Untouched untouched);
  void wait_for_reads(const File& file, ByteRange range, std::uint64_t step_bytes,
                      FetchResult& result);
  // Has the whole range on its way: each window of kPopulateBytes by one fault where the strategy
  // allows that and it works, the rest by advice. Where nothing of it is there, and no one has
  // asked for any of it, `absent`.
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
  [[nodiscard]] int descriptor_for_reads(const File& file) const;
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
  Beyond beyond_ = Beyond::wanted;  // of the call at hand
  std::vector<std::byte> buffer_;   // allocated at the first pread, then reused: stays in the cache
};

}  // namespace shardahead
