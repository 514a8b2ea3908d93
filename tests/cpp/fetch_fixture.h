// fetch_fixture: one simulated file and a fetcher for it, for the fetch suites. One thread.
#pragma once

#include <atomic>

#include "engine/fetch.h"
#include "test_support.h"

namespace shardahead::testing {

class FetchFixture {
 public:
  explicit FetchFixture(Strategy strategy, std::uint64_t size_bytes, SimulatedKernel kernel = {})
      : checkpoint({size_bytes}, kernel), fetcher(checkpoint.io, steps, strategy, cancelled) {
    checkpoint.open();
    file = checkpoint.files->acquire(0);
  }

  FetchResult fetch(ByteRange range) { return fetcher.fetch(*file, range); }
  FetchResult fetch_all() { return fetch({0, file->status().size_bytes}); }

  [[nodiscard]] Step step() const { return steps.get(file->status().device); }
  [[nodiscard]] std::uint64_t resident_bytes() const { return checkpoint.resident_bytes(); }
  // Every page has come in, not only been asked for.
  [[nodiscard]] bool all_up_to_date() const {
    const std::uint64_t size_bytes = file->status().size_bytes;
    return checkpoint.kernel.mincore(file->descriptor(), {0, size_bytes}) ==
           static_cast<std::int64_t>(align_up(size_bytes, page_bytes()) / page_bytes());
  }
  [[nodiscard]] std::uint64_t advices() const {
    return checkpoint.io.calls(Operation::fadvise_willneed) +
           checkpoint.io.calls(Operation::readahead);
  }
  [[nodiscard]] std::uint64_t populates() const {
    return checkpoint.io.calls(Operation::fault_in_huge_pages);
  }
  [[nodiscard]] std::uint64_t preads() const { return checkpoint.io.calls(Operation::pread); }

  SimulatedCheckpoint checkpoint;
  StepTable steps;
  std::atomic<bool> cancelled{false};
  Fetcher fetcher;
  std::shared_ptr<const File> file;
};

}  // namespace shardahead::testing
