#include "control_folder.h"

#include <unistd.h>

#include <cerrno>
#include <sstream>
#include <system_error>

namespace slowfs {
namespace {

struct Execute {
  Filer& filer;

  void operator()(const ResetCounters&) const { filer.counters.reset(); }
  void operator()(const ClearFaults&) const { filer.faults.clear(); }
  void operator()(const SetRate& set) const { filer.link.set_rate(set.bytes_per_s); }
  void operator()(const SetRoundTrip& set) const { filer.link.set_round_trip(set.round_trip); }
  void operator()(const SetClose& set) const { filer.close_delay = set.delay; }
  void operator()(const AddEio& add) const { filer.faults.of(add.path).eio_offset = add.offset; }
  void operator()(const AddBad& add) const {
    filer.faults.of(add.path).bad = ByteSpan{add.offset, add.offset + add.bytes};
  }
  void operator()(const AddStall& add) const {
    filer.faults.of(add.path).stall = Stall{add.offset, add.delay};
  }
  void operator()(const AddTruncate& add) const {
    filer.faults.of(add.path).truncated_bytes = add.bytes;
  }
};

// A fault belongs to the file itself, whatever link it was named by.
struct ResolvePath {
  const SourceTree& tree;

  template <typename Fault>
    requires requires(Fault& fault) { fault.path; }
  void operator()(Fault& fault) const {
    fault.path = tree.resolve_file(fault.path);
  }
  void operator()(const auto&) const {}
};

}  // namespace

std::optional<std::uint64_t> ControlFolder::child(std::string_view name) noexcept {
  if (name == "counters") return kCounters;
  if (name == "control") return kControl;
  return std::nullopt;
}

struct stat ControlFolder::attributes(std::uint64_t inode) noexcept {
  struct stat result = {};
  result.st_ino = inode;
  result.st_nlink = 1;
  result.st_uid = geteuid();
  result.st_gid = getegid();
  switch (inode) {
    case kFolder: result.st_mode = S_IFDIR | 0755; break;
    case kControl: result.st_mode = S_IFREG | 0200; break;
    default: result.st_mode = S_IFREG | 0444; break;
  }
  return result;
}

std::vector<DirectoryEntry> ControlFolder::list() {
  return {{"counters", attributes(kCounters)}, {"control", attributes(kControl)}};
}

std::string ControlFolder::counters_text() const {
  const Counters::Snapshot now = filer_.counters.snapshot();
  std::ostringstream out;
  out.precision(15);
  out << std::boolalpha << "{\"bytes_served\": " << now.bytes_served
      << ", \"requests\": " << now.requests << ", \"failed_requests\": " << now.failed_requests
      << ", \"seeks\": " << now.seeks << ", \"in_flight\": " << now.in_flight
      << ", \"peak_in_flight\": " << now.peak_in_flight
      << ", \"seconds_since_reset\": " << now.seconds_since_reset
      << ", \"rate_mb_per_s\": " << static_cast<double>(filer_.link.bytes_per_s()) / 1e6
      << ", \"round_trip_ms\": " << static_cast<double>(filer_.link.round_trip().count()) / 1e6
      << ", \"request_kib\": " << options_.request_kib
      << ", \"readahead_kib\": " << options_.readahead_kib
      << ", \"max_background\": " << options_.max_background
      << ", \"congestion_threshold\": " << options_.congestion_threshold
      << ", \"keep_cache\": " << options_.keep_cache << ", \"direct_io\": " << options_.direct_io
      << "}\n";
  return out.str();
}

void ControlFolder::execute(std::string_view text) {
  const auto commands = parse_commands(text);
  if (!commands) throw std::system_error(EINVAL, std::generic_category(), "bad command");
  execute(*commands);
}

void ControlFolder::execute(const std::vector<Command>& commands) {
  std::vector<Command> resolved = commands;
  for (Command& command : resolved) std::visit(ResolvePath{tree_}, command);
  for (const Command& command : resolved) std::visit(Execute{filer_}, command);
}

}  // namespace slowfs
