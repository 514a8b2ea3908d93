#include "request_counter.h"

#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/proc_text.h"

namespace shardahead::bench {
namespace {

constexpr std::uint64_t kSectorBytes = 512;  // of /sys/dev/block/*/stat, whatever the device's

std::vector<std::string> words_of(const std::string& line) {
  std::istringstream stream(line);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(std::move(word));
  return words;
}

// device SOURCE mounted on POINT with fstype TYPE ...
bool opens_mount(const std::vector<std::string>& words) {
  return words.size() >= 8 && words[0] == "device" && words[2] == "mounted" && words[3] == "on";
}

// READ: operations transmissions timeouts bytes_sent bytes_received ...
std::optional<Requests> parse_read_line(const std::vector<std::string>& words) {
  if (words.size() < 6 || words[0] != "READ:") return std::nullopt;
  const auto reads = parse_count(words[1]);
  const auto wire_bytes = parse_count(words[5]);
  if (!reads || !wire_bytes) return std::nullopt;
  return Requests{*reads, *wire_bytes};
}

}  // namespace

const char* to_string(CounterKind kind) noexcept {
  switch (kind) {
    case CounterKind::nfs: return "nfs";
    case CounterKind::block_device: return "block device";
    case CounterKind::slowfs: return "slowfs";
    case CounterKind::none: break;
  }
  return "not told";
}

std::optional<Requests> parse_mountstats(std::string_view text, std::string_view mount_point) {
  std::optional<Requests> found;
  bool within = false;
  for (const std::string_view line : split(text, '\n')) {
    const auto words = words_of(std::string(line));
    if (opens_mount(words)) {
      within = decode_octal(words[4]) == mount_point;
      if (within) found.reset();  // a later mount at the same point hides the earlier
    } else if (within) {
      if (const auto requests = parse_read_line(words)) found = requests;
    }
  }
  return found;
}

std::optional<Requests> parse_block_stat(std::string_view text) {
  const auto words = words_of(std::string(text));
  if (words.size() < 4) return std::nullopt;
  const auto reads = parse_count(words[0]);
  const auto sectors = parse_count(words[2]);
  if (!reads || !sectors) return std::nullopt;
  return Requests{*reads, *sectors * kSectorBytes};
}

std::optional<Requests> parse_slowfs_counters(std::string_view text) {
  const auto counters = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!counters.is_object()) return std::nullopt;
  const auto requests = counters.find("requests");
  const auto bytes = counters.find("bytes_served");
  if (requests == counters.end() || bytes == counters.end()) return std::nullopt;
  if (!requests->is_number_unsigned() || !bytes->is_number_unsigned()) return std::nullopt;
  return Requests{requests->get<std::uint64_t>(), bytes->get<std::uint64_t>()};
}

std::optional<Requests> difference(const Requests& before, const Requests& after) {
  if (after.reads < before.reads || after.wire_bytes < before.wire_bytes) return std::nullopt;
  return Requests{after.reads - before.reads, after.wire_bytes - before.wire_bytes};
}

RequestCounter::RequestCounter(const Mount& mount) {
  const std::string slowfs = mount.mount_point + "/.slowfs/counters";
  const std::string device = "/sys/dev/block/" + to_string(mount.device) + "/stat";
  if (mount.type == "nfs" || mount.type == "nfs4") {
    kind_ = CounterKind::nfs;
    path_ = "/proc/self/mountstats";
    mount_point_ = mount.mount_point;
  } else if (mount.type == "fuse.slowfs" && ::access(slowfs.c_str(), R_OK) == 0) {
    kind_ = CounterKind::slowfs;
    path_ = slowfs;
  } else if (mount.device.major != 0 && ::access(device.c_str(), R_OK) == 0) {
    kind_ = CounterKind::block_device;
    path_ = device;
  }
}

std::optional<Requests> RequestCounter::read() const {
  if (kind_ == CounterKind::none) return std::nullopt;
  const auto text = file_text(path_);
  if (!text) return std::nullopt;
  switch (kind_) {
    case CounterKind::nfs: return parse_mountstats(*text, mount_point_);
    case CounterKind::block_device: return parse_block_stat(*text);
    case CounterKind::slowfs: return parse_slowfs_counters(*text);
    case CounterKind::none: break;
  }
  return std::nullopt;
}

RequestCounters::RequestCounters(const std::vector<MountUsed>& mounts) {
  for (const MountUsed& used : mounts) {
    RequestCounter counter(used.mount);
    if (std::find(counters_.begin(), counters_.end(), counter) == counters_.end()) {
      counters_.push_back(std::move(counter));
    }
  }
}

std::optional<RequestCounters::Reading> RequestCounters::read() const {
  Reading reading;
  for (const RequestCounter& counter : counters_) {
    const auto requests = counter.read();
    if (!requests) return std::nullopt;
    reading.push_back(*requests);
  }
  return reading;
}

std::optional<Requests> RequestCounters::between(const std::optional<Reading>& before,
                                                 const std::optional<Reading>& after) {
  if (!before || !after || before->empty() || before->size() != after->size()) return std::nullopt;
  Requests total;
  for (std::size_t i = 0; i < before->size(); ++i) {
    const auto part = difference((*before)[i], (*after)[i]);
    if (!part) return std::nullopt;
    total.reads += part->reads;
    total.wire_bytes += part->wire_bytes;
  }
  return total;
}

}  // namespace shardahead::bench
