// reading_ledger: what the readers of a simulated node were asked for and seen to read, and the
// rules that this is held against: those of one rank, and those of a mount that keeps no pages,
// which all of them share. What breaks a rule goes to the ledger. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "simulation_ledger.h"

namespace shardahead::testing {

// Of the ranks that share what they read from a mount that keeps nothing.
class SharedReading {
 public:
  SharedReading(Ledger& ledger, PageCache& cache) : ledger_(ledger), cache_(cache) {}

  // Some of them may have to open files again: nothing is judged.
  void exempt() noexcept { exempt_ = true; }
  // One of them saw that all others had opened their files: no one opens any from now on, and what
  // is read from now on is read once.
  void all_have_opened(std::uint32_t rank);
  void opens(std::uint32_t rank, std::uint32_t file);
  // The last of them is over.
  void check();
  [[nodiscard]] bool all_met() const noexcept { return all_met_; }

 private:
  Ledger& ledger_;
  PageCache& cache_;
  bool exempt_ = false;
  bool all_met_ = false;
};

// Of one rank.
class ReadingLedger {
 public:
  ReadingLedger(Ledger& ledger, std::uint32_t rank, std::uint64_t ahead_bytes)
      : ledger_(ledger), rank_(rank), ahead_bytes_(ahead_bytes) {}

  // In the order of files and offsets; `wanted_bytes` of the range, between which there may be
  // gaps, and `memory_bytes` are what it takes to hold them.
  std::size_t ask(std::uint32_t file, ByteRange range, std::uint64_t wanted_bytes,
                  std::uint64_t memory_bytes);
  // The consumer has come for it: it may be read whatever is ahead.
  void wait_for(std::size_t part) { parts_[part].waited_for = true; }
  void take(std::size_t part) { parts_[part].taken = true; }
  // By one of its threads.
  void read(std::uint32_t file, ByteRange range);
  // All have been taken, and none failed: of each what was wanted was read, and no more than lies
  // in its range.
  void check_end();

  // With the gaps.
  [[nodiscard]] std::uint64_t asked_bytes() const noexcept { return asked_bytes_; }
  [[nodiscard]] std::uint64_t read_bytes() const noexcept { return read_bytes_; }

 private:
  struct Part {
    std::uint32_t file = 0;
    ByteRange range;
    std::uint64_t wanted_bytes = 0;
    std::uint64_t memory_bytes = 0;
    std::uint64_t read_bytes = 0;
    bool waited_for = false;
    bool begun = false;
    bool taken = false;
  };

  void check_ahead();

  Ledger& ledger_;
  const std::uint32_t rank_;
  const std::uint64_t ahead_bytes_;
  std::vector<Part> parts_;
  std::uint64_t asked_bytes_ = 0;
  std::uint64_t read_bytes_ = 0;
};

}  // namespace shardahead::testing
