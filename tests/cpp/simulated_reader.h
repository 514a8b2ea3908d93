// simulated_reader: how a simulated rank loads in mode pread: it reads tensors into memory of their
// own, each rank by itself, or together with others where their mount keeps no pages. What it gets
// is compared with what is in the files. One real thread.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "engine/engine.h"
#include "plan/byte_runs.h"
#include "reader/tensor_reader.h"
#include "reader_file_io.h"
#include "reading_ledger.h"
#include "simulated_rank.h"

namespace shardahead::testing {

class SimulatedReader {
 public:
  // What the rank does while it waits; and how long it has been stopped in all.
  struct Rank {
    std::uint32_t index = 0;
    std::function<void()> look_up;
    std::function<std::chrono::nanoseconds()> stopped_for;
  };

  SimulatedReader(SimulatedNode& node, Rank rank, FileIo& io, RankFileIo& rank_io, Runtime& runtime,
                  std::uint64_t seed);
  ~SimulatedReader() = default;
  SimulatedReader(const SimulatedReader&) = delete;
  SimulatedReader& operator=(const SimulatedReader&) = delete;

  // As an iterator does. With an engine: it tells what the mount keeps, and meets the others.
  void load(Engine* engine);
  // From any virtual thread of the rank.
  void close();
  // Of what is left at the end.
  void end() { reader_.reset(); }

 private:
  struct Part {
    std::uint32_t file = 0;
    std::uint64_t offset = 0;
    std::vector<std::uint64_t> lengths_bytes;  // none: the header, or runs
    std::optional<ByteRuns> runs;
    TensorReader::Part number = 0;
    std::size_t asked = 0;  // in the ledger

    [[nodiscard]] bool is_header() const { return lengths_bytes.empty() && !runs; }
    [[nodiscard]] std::uint64_t length_bytes() const;
    // From its first byte to its last.
    [[nodiscard]] ByteRange range() const;
  };

  void make_reader(bool through_mappings);
  void meet(Engine& engine);
  [[nodiscard]] std::vector<Part> draw_parts();
  // Of a tensor, in so many bytes; nothing where it does not fit.
  [[nodiscard]] std::optional<ByteRuns> draw_runs(std::uint64_t most_bytes);
  void add(Part& part);
  void take(const Part& part);
  void check(const Part& part, const TakenPart& taken);
  void check_header(const Part& part, const TakenPart& taken);
  void check_tensors(const Part& part, const TakenPart& taken);
  void check_runs(const Part& part, const ByteRuns& runs, const TakenPart& taken);
  void check_error(const Part& part, const IoError& error);
  void check_end(bool alone, bool shares);
  void broken(const std::string& rule) { node_.ledger.broken(rank_.index, rule); }

  SimulatedNode& node_;
  const Rank rank_;
  const RankScenario& scenario_;
  ReadingLedger ledger_;
  ReaderFileIo io_;
  RankFileIo& rank_io_;
  Runtime& runtime_;
  Random random_;
  std::uint64_t in_vain_bytes_ = 0;  // that may have come before it was known what the mount keeps
  std::unique_ptr<TensorReader> reader_;
};

}  // namespace shardahead::testing
