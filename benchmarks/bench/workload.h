// workload: which files are measured, and how much of each. Finds them and checks them once; reads
// none of their bytes. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "node/file_io.h"
#include "plan/plan.h"

namespace shardahead::bench {

// Runs of digits are compared by their value, all else byte by byte: shard 2 before shard 10.
bool naturally_before(std::string_view a, std::string_view b);

// The names of a folder that are its shards, in natural order: *.safetensors, else *.bin and *.pt,
// else all. Hidden names are left out.
std::vector<std::string> shards_among(std::vector<std::string> names);

// The files that the paths name, folders looked into, in natural order. Throws IoException where a
// path is missing, and UsageError where a folder has no files.
std::vector<std::string> files_of(const std::vector<std::string>& paths);

struct MeasuredFile {
  std::string path;
  std::uint64_t size_bytes = 0;
  std::uint64_t measured_bytes = 0;  // from its start
};

struct Workload {
  std::vector<MeasuredFile> files;  // those of which something is measured
  std::uint64_t measured_bytes = 0;
  std::uint64_t total_bytes = 0;  // of all files that were named
  std::size_t total_files = 0;

  [[nodiscard]] std::vector<std::string> paths() const;
};

// The first `limit_bytes` of the files, rounded up to whole pages; 0: all. A file that is named
// twice, also through a symlink, counts once. Throws IoException for the first file that cannot be
// opened.
Workload workload_of(FileIo& io, const std::vector<std::string>& paths, std::uint64_t limit_bytes);

// What a plan takes: each measured file with the part of it that is wanted.
std::vector<PlannedFile> planned_files(const Workload& workload);

}  // namespace shardahead::bench
