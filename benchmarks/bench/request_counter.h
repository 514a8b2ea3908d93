// request_counter: how many read requests the storage of a mount has got, where anyone counts them:
// the NFS client, a block device, or slowfs. Others who read meanwhile are counted too. Parsers are
// pure, the rest reads /proc, /sys and slowfs's counters. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mounts.h"

namespace shardahead::bench {

struct Requests {
  std::uint64_t reads = 0;
  std::uint64_t wire_bytes = 0;  // that crossed the network or left the storage
  friend bool operator==(const Requests&, const Requests&) = default;
};

// READ operations and the bytes of their replies, of the last mount at this point in
// /proc/self/mountstats.
std::optional<Requests> parse_mountstats(std::string_view text, std::string_view mount_point);

// /sys/dev/block/MAJOR:MINOR/stat
std::optional<Requests> parse_block_stat(std::string_view text);

// The counters of slowfs, one JSON object.
std::optional<Requests> parse_slowfs_counters(std::string_view text);

// What was counted between two readings; nothing where the counter was set back.
std::optional<Requests> difference(const Requests& before, const Requests& after);

enum class CounterKind { none, nfs, block_device, slowfs };

const char* to_string(CounterKind kind) noexcept;

class RequestCounter {
 public:
  explicit RequestCounter(const Mount& mount);

  [[nodiscard]] CounterKind kind() const noexcept { return kind_; }
  [[nodiscard]] std::optional<Requests> read() const;
  // Two mounts of one device or filesystem count the same requests.
  friend bool operator==(const RequestCounter&, const RequestCounter&) = default;

 private:
  CounterKind kind_ = CounterKind::none;
  std::string path_;
  std::string mount_point_;  // for nfs only
};

// All counters of the mounts together: nothing as soon as one mount has none.
class RequestCounters {
 public:
  explicit RequestCounters(const std::vector<MountUsed>& mounts);

  using Reading = std::vector<Requests>;
  [[nodiscard]] std::optional<Reading> read() const;
  [[nodiscard]] static std::optional<Requests> between(const std::optional<Reading>& before,
                                                       const std::optional<Reading>& after);

 private:
  std::vector<RequestCounter> counters_;
};

}  // namespace shardahead::bench
