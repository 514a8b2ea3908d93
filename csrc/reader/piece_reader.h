// piece_reader: reads ranges of files into memory that is given: through short reads, with advice
// where the page cache is used on the way, once more after an error; or through mappings, so that
// the ranks of a node share what they read. What is wanted with gaps between is read together where
// that is faster. It opens each file once and owns no thread. Any thread.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/runtime.h"
#include "base/thread_safety.h"
#include "node/file_io.h"
#include "node/file_table.h"
#include "node/mapped_source.h"
#include "plan/byte_runs.h"
#include "plan/request_cost.h"
#include "reader/tensor_memory.h"

namespace shardahead {

// No header of a safetensors file may be longer.
inline constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
// What tells the kind of a file where it is no safetensors file.
inline constexpr std::uint64_t kPrefixBytes = 512;
// What is read through gaps at once: the memory for that comes on top of the tensor's, by thread.
inline constexpr std::uint64_t kMostThroughGapsBytes = 4 * kMiB;

struct PieceResult {
  std::uint64_t read_bytes = 0;
  std::uint64_t file_bytes = 0;          // how long the file is; 0 where it could not be opened
  std::shared_ptr<TensorMemory> header;  // of read_header() alone
  std::optional<IoError> error;          // its offset is that of the first byte not read
};

class PieceReader {
 public:
  // `found`, where given: what the files were when they were looked at.
  PieceReader(FileIo& io, std::vector<std::string> paths, bool through_mappings = false,
              const std::vector<FileStatus>& found = {}, Runtime& runtime = system_runtime());
  // For a forked child: the same files, none of the locks and nothing that is open.
  struct Alone {};
  PieceReader(const PieceReader& other, Alone);

  // Throws std::out_of_range.
  [[nodiscard]] const std::string& path(std::size_t file) const { return paths_.at(file); }

  [[nodiscard]] std::size_t files() const noexcept { return paths_.size(); }
  [[nodiscard]] bool through_mappings() const noexcept { return through_mappings_; }
  // Opens and maps the file, if mappings are in use: opening it later may empty its page cache
  // while others use it. What fails is told by read().
  void map(std::size_t file) noexcept;

  // `advises`: the kernel is told of all of the range before it is read, where the page cache is
  // used. For one who reads in order it reads ahead by itself.
  PieceResult read(std::size_t file, ByteRange range, std::byte* to, bool advises = true);
  // Tensors that adjoin, as one; one by one where that fails, so that the error is that of the
  // first that cannot be read, whatever lies behind it.
  PieceResult read_each(std::size_t file, std::uint64_t offset,
                        const std::vector<std::uint64_t>& lengths_bytes, std::byte* to,
                        bool advises = true);
  // Of runs whose first byte is at `offset`, the packed bytes. The gaps between them are of no
  // account: what cannot be read there is no error.
  PieceResult read_runs(std::size_t file, std::uint64_t offset, const ByteRuns& runs,
                        ByteRange packed, std::byte* to);
  // Up to which length gaps are read through now.
  [[nodiscard]] std::uint64_t gap_bytes() const;
  // See TensorReader::add_header().
  PieceResult read_header(std::size_t file);
  // Between two system calls of the reads in progress.
  void cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  [[nodiscard]] bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  // Open files are kept open while parts of them are read, and a few beyond that.
  static constexpr std::size_t kKeptFiles = 4;
  // Of what has been read of a file, a little: the end of its header and the last few pieces. Where
  // its time of modification has moved, these bytes tell whether it is another version.
  class Samples {
   public:
    void add(std::uint64_t offset, const std::byte* bytes, std::uint64_t length);
    // Throws IoException where the file has other bytes now, or they cannot be read.
    void require_same(FileIo& io, const File& file);

   private:
    static constexpr std::size_t kKept = 8;
    struct Sample {
      std::uint64_t offset = 0;
      std::vector<std::byte> bytes;
    };
    Mutex mutex_;
    std::vector<Sample> kept_ GUARDED_BY(mutex_);
    std::size_t next_ GUARDED_BY(mutex_) = 0;  // to be overwritten; never the first, of the header
  };
  struct OpenFile {
    Mutex opening;  // held while it is opened: FUSE may drop pages at every open()
    std::weak_ptr<const File> file GUARDED_BY(opening);
    // Where that one was read in order, advice is given by another, that is never read.
    std::weak_ptr<const File> advised GUARDED_BY(opening);
    std::atomic<bool> read_in_order{false};
    std::shared_ptr<const MappedSource> mapped GUARDED_BY(opening);  // never replaced
    // As it was found: what is opened again must be the same.
    std::optional<FileStatus> first GUARDED_BY(opening);
    Samples samples;
  };

  std::shared_ptr<const File> open(std::size_t file, OpenFile& entry) REQUIRES(entry.opening);
  std::shared_ptr<const File> acquire(std::size_t file);
  std::shared_ptr<const File> acquire_to_advise(std::size_t file, std::shared_ptr<const File> read);
  std::shared_ptr<const File> acquire_as(std::weak_ptr<const File>& slot, std::size_t file,
                                         OpenFile& entry, std::shared_ptr<const File>& closed)
      REQUIRES(entry.opening);
  std::shared_ptr<const MappedSource> mapped(std::size_t file);
  // Throws IoException.
  std::uint64_t file_bytes(std::size_t file);
  PieceResult read_prefix(std::size_t file, std::byte* to);
  PieceResult read_through_gaps(std::size_t file, std::uint64_t offset, const ByteRuns& runs,
                                const RunRead& read, std::byte* to);
  void note(std::uint64_t read_bytes, Runtime::Time began);
  PieceResult read_whole_header(std::size_t file);
  PieceResult copy_mapped(std::size_t file, ByteRange range, std::byte* to);
  PieceResult read_file(std::size_t file, ByteRange range, std::byte* to, bool advises);
  void advise(std::size_t file, const std::shared_ptr<const File>& read, ByteRange range);
  // Up to the first error or the end of the file.
  std::uint64_t read_plainly(const File& file, ByteRange range, std::byte* to,
                             std::optional<IoError>& error);
  void look_at_cache(const File& file, ByteRange range);

  FileIo& io_;
  Runtime& runtime_;
  const std::vector<std::string> paths_;
  const bool through_mappings_;
  std::deque<OpenFile> files_;
  // It orders nothing: relaxed is enough, as for the next one.
  std::atomic<bool> cancelled_{false};
  // Whether what was read is in the page cache: else advice would fetch it a second time.
  enum class Caches { untried, no, yes };
  std::atomic<Caches> caches_{Caches::untried};
  Mutex mutex_;
  std::deque<std::shared_ptr<const File>> kept_ GUARDED_BY(mutex_);
  RequestCost cost_;
};

}  // namespace shardahead
