#include "page_cache.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>
#include <thread>

#include "base/proc_text.h"
#include "node/residency.h"
#include "run.h"
#include "units.h"

namespace shardahead::bench {
namespace {

namespace fs = std::filesystem;

constexpr auto kDropTime = std::chrono::seconds(2);
constexpr auto kDropInterval = std::chrono::milliseconds(20);
constexpr int kWarmAttempts = 3;  // the kernel may reclaim a page at any moment
constexpr const char* kUnknown = "what is resident is unknown: ";

std::string refused(const File& file, const char* operation, int result) {
  return std::string(operation) + " " + printable(file.path()) + ": " +
         std::generic_category().message(-result);
}

// Why it was refused; empty where it was not. Drops whole files: what readahead brought in behind
// the measured part goes with it.
std::string drop(FileTable& files, const Workload& workload) {
  for (std::size_t i = 0; i < workload.files.size(); ++i) {
    const auto file = files.acquire(i);
    const int result = evict(system_file_io(), *file, {0, file->status().size_bytes});
    if (result < 0) return refused(*file, "evict", result);
  }
  return "";
}

bool is_memory(const std::string& type) {
  return type == "tmpfs" || type == "ramfs" || type == "hugetlbfs" || type == "devtmpfs";
}

std::string why_it_stayed(const FileTable& files, const Workload& workload,
                          const std::vector<MountUsed>& mounts) {
  for (const MountUsed& used : mounts) {
    if (is_memory(used.mount.type)) return used.mount.type + " is memory: its pages are the file";
  }
  if (std::string mapped = who_maps(files, workload); !mapped.empty()) return mapped;
  return "pages that a process has mapped, or that are being read or written, cannot be dropped";
}

std::string of_all(std::uint64_t bytes, const Workload& workload) {
  return format_bytes(bytes) + " of " + format_bytes(workload.measured_bytes);
}

// Whether the line of /proc/PID/maps is of this file: ADDRESS MODE OFFSET MAJOR:MINOR INODE PATH,
// the device in hexadecimal.
bool maps_file(const std::string& line, const FileStatus& status) {
  std::istringstream words(line);
  std::string address, mode, offset, device;
  std::uint64_t inode = 0;
  if (!(words >> address >> mode >> offset >> device >> inode) || inode != status.inode) {
    return false;
  }
  std::istringstream number(device);
  unsigned major_number = 0;
  unsigned minor_number = 0;
  char colon = 0;
  number >> std::hex >> major_number >> colon >> minor_number;
  return major_number == major(status.device) && minor_number == minor(status.device);
}

std::string mapped_by(const fs::path& process, const FileTable& files, const Workload& workload) {
  std::ifstream maps(process / "maps");
  for (std::string line; std::getline(maps, line);) {
    for (std::size_t i = 0; i < workload.files.size(); ++i) {
      if (!maps_file(line, files.status(i))) continue;
      std::string name = file_text((process / "comm").string()).value_or("");
      name = name.substr(0, name.find('\n'));
      return "process " + process.filename().string() + " (" + printable(name) + ") has " +
             printable(workload.files[i].path) + " mapped";
    }
  }
  return "";
}

}  // namespace

Found resident_in(FileTable& files, const Workload& workload) {
  Found found{0, ""};
  for (std::size_t i = 0; i < workload.files.size(); ++i) {
    const auto file = files.acquire(i);
    const Residency part =
        residency(system_file_io(), *file, {0, workload.files[i].measured_bytes});
    if (!part.resident_bytes) return {std::nullopt, part.reason};
    *found.resident_bytes += *part.resident_bytes;
  }
  return found;
}

std::string who_maps(const FileTable& files, const Workload& workload) {
  std::error_code error;
  const auto end = fs::directory_iterator();
  for (fs::directory_iterator entry("/proc", error); !error && entry != end;
       entry.increment(error)) {
    if (!parse_count(entry->path().filename().string())) continue;
    if (std::string found = mapped_by(entry->path(), files, workload); !found.empty()) return found;
  }
  return "";
}

Prepared make_cold(FileTable& files, const Workload& workload,
                   const std::vector<MountUsed>& mounts) {
  const auto deadline = std::chrono::steady_clock::now() + kDropTime;
  Prepared prepared;
  for (;;) {
    prepared.reason = drop(files, workload);
    prepared.found = resident_in(files, workload);
    const auto& resident_bytes = prepared.found.resident_bytes;
    if (!resident_bytes) {
      prepared.reason = kUnknown + prepared.found.reason;
      return prepared;
    }
    prepared.ready = *resident_bytes == 0;
    if (prepared.ready || signal_that_came() != 0) return prepared;
    if (std::chrono::steady_clock::now() >= deadline) break;
    std::this_thread::sleep_for(kDropInterval);
  }
  if (prepared.reason.empty()) prepared.reason = why_it_stayed(files, workload, mounts);
  prepared.reason =
      of_all(*prepared.found.resident_bytes, workload) + " stayed resident: " + prepared.reason;
  return prepared;
}

Prepared make_warm(FileTable& files, const Workload& workload, const RequestCounters& counters) {
  Prepared prepared;
  for (int attempt = 0; attempt < kWarmAttempts && signal_that_came() == 0; ++attempt) {
    prepared.found = resident_in(files, workload);
    prepared.ready = prepared.found.resident_bytes == workload.measured_bytes;
    if (prepared.ready || !prepared.found.resident_bytes) break;
    const Report report = run_once(workload, default_setting(), counters).report;
    if (!report.errors.empty()) prepared.reason = describe(report.errors.front());
  }
  if (prepared.ready) return prepared;
  prepared.found = resident_in(files, workload);
  prepared.ready = prepared.found.resident_bytes == workload.measured_bytes;
  if (!prepared.found.resident_bytes) {
    prepared.reason = kUnknown + prepared.found.reason;
  } else if (prepared.reason.empty()) {
    prepared.reason = "only " + of_all(*prepared.found.resident_bytes, workload) +
                      " stayed resident: memory is short, or this mount does not keep pages";
  }
  return prepared;
}

}  // namespace shardahead::bench
