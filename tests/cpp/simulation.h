// simulation: plan, board, window and engine of several virtual ranks, their consumers, those that
// read tensors by themselves (mode pread), and what goes wrong, on a virtual clock, all drawn from
// a seed. The code of the product is the very same: only its seams (file_io.h, runtime.h) lead
// elsewhere. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "watched_claims.h"

namespace shardahead::testing {

struct SimulationOptions {
  std::uint64_t seed = 1;
  bool keeps_trace = false;
  Bug bug = Bug::none;
};

struct SimulationResult {
  std::vector<std::string> violations;  // none: all rules held
  std::uint64_t trace_hash = 0;
  std::uint64_t events = 0;
  std::string trace;  // if it is kept
  double virtual_seconds = 0;
  double longest_wait_seconds = 0;         // of a consumer
  double longest_for_stopped_seconds = 0;  // that one waited for one stopped rank, in all
  std::uint32_t ranks = 0;
  std::uint32_t deaths = 0;
  std::uint32_t stops = 0;
  std::uint32_t readers = 0;  // ranks that read by themselves
  bool all_met = false;       // and shared what they read
  std::uint64_t read_alone_bytes = 0;
  std::uint64_t read_bytes = 0;     // from the storage
  std::uint64_t evicted_bytes = 0;  // by the kernel, for want of memory
  std::uint64_t dropped_bytes = 0;  // by ranks, behind their consumers
  std::uint64_t failed_bytes = 0;   // reported by ranks
};

SimulationResult simulate(const SimulationOptions& options);

}  // namespace shardahead::testing
