// tensor_reader: reads tensors into memory of their own, in parallel pieces and a bounded amount
// ahead of whoever takes them. No mapping of the file, and nothing is left in the page cache on
// purpose: for mounts that do not keep pages. Any thread may add and close; one at a time takes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/runtime.h"
#include "base/waiting.h"
#include "node/file_io.h"
#include "plan/byte_runs.h"
#include "reader/tensor_memory.h"

namespace shardahead {

struct TensorReaderOptions {
  std::uint32_t threads = 4;
  // Of memory that has been read into, or is being, and has not been taken; the next part is read
  // whatever its size.
  std::uint64_t ahead_bytes = 128 * kMiB;
  // What one thread reads at once of a tensor.
  std::uint64_t piece_bytes = 4 * kMiB;
  // Through mappings of the files, all made at the start, so that the ranks of a node that read at
  // about the same time share what is fetched where read() would not let them.
  bool through_mappings = false;
  // What the files were when they were looked at, of each or of none: what is opened must be the
  // same (require_unchanged).
  // GCC asks for the initializer where others are designated.
  std::vector<FileStatus> found = {};  // NOLINT(readability-redundant-member-init)
};

// Some tensors that adjoin in a file, read as one.
struct TakenPart {
  std::shared_ptr<TensorMemory> memory;  // nothing where not even the file could be opened
  std::uint64_t readable_bytes = 0;      // from the start; all of them unless there is an error
  std::uint64_t file_bytes = 0;          // how long the file is
  std::optional<IoError> error;          // the one at the lowest offset
};

class TensorReader {
 public:
  using Part = std::size_t;

  // Throws std::invalid_argument where an option is out of range. `io` and `runtime` must outlive
  // the process's last thread. A file is opened when its first part is read.
  TensorReader(FileIo& io, std::vector<std::string> paths, const TensorReaderOptions& options,
               Runtime& runtime = system_runtime());
  // Closes and returns at once: a thread that sits in a read on a dead server keeps what it needs
  // alive, and ends when the read does, or with the process.
  ~TensorReader();
  TensorReader(const TensorReader&) = delete;
  TensorReader& operator=(const TensorReader&) = delete;

  // With `through_mappings`: comes back when all files have been opened, or could not be. To be
  // called before the first part is added; `between` as in take().
  void wait_opened(const Between& between = {});
  // Parts are read in the order in which they are added.
  Part add(std::size_t file, std::uint64_t offset, std::vector<std::uint64_t> lengths_bytes);
  // A part of one tensor, whose first byte is at `offset`: it lands packed. An error leaves nothing
  // of it readable.
  Part add_runs(std::size_t file, std::uint64_t offset, ByteRuns runs);
  // The first kPrefixBytes of a file, or as many as it has, which tell what it is where it is no
  // safetensors file; and all of its header where there can be one.
  Part add_header(std::size_t file);
  // Whether take() would not wait.
  [[nodiscard]] bool ready(Part part) const;
  // The part once it has been read, or what stands in the way of it; each once. It is read before
  // all others. While it waits, `between` is called every 50 ms or more often, and may throw to end
  // the wait. In a forked child it reads by itself. Throws std::logic_error after close().
  TakenPart take(Part part, const Between& between = {});
  // Reads nothing any more, and frees what was not taken.
  void close();
  // Taken or not.
  [[nodiscard]] std::uint64_t read_bytes() const;

 private:
  struct State;
  Runtime& runtime_;
  std::shared_ptr<State> state_;
};

}  // namespace shardahead
