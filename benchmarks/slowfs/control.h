// control: the one grammar of run-time commands, used by .slowfs/control and by --fault. Parses
// text, carries nothing out. No state; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "link_schedule.h"

namespace slowfs {

struct ResetCounters {};
struct ClearFaults {};
struct SetRate {
  std::uint64_t bytes_per_s;
};
struct SetRoundTrip {
  Nanoseconds round_trip;
};
struct SetClose {
  Nanoseconds delay;
};
struct AddEio {
  std::string path;
  std::uint64_t offset;
};
struct AddBad {
  std::string path;
  std::uint64_t offset;
  std::uint64_t bytes;
};
struct AddStall {
  std::string path;
  std::uint64_t offset;
  Nanoseconds delay;
};
struct AddTruncate {
  std::string path;
  std::uint64_t bytes;
};

using Command = std::variant<ResetCounters, ClearFaults, SetRate, SetRoundTrip, SetClose, AddEio,
                             AddBad, AddStall, AddTruncate>;

// Nothing for a line that is no command. The path is everything between the first word and the
// numbers at the end, so it may hold spaces.
std::optional<Command> parse_command(std::string_view line);

// One command per line, blank lines skipped; nothing if any line is bad.
std::optional<std::vector<Command>> parse_commands(std::string_view text);

// Shared with the command line, so that a number means the same in both.
std::optional<std::uint64_t> parse_count(std::string_view text);
std::optional<Nanoseconds> parse_milliseconds(std::string_view text);
std::optional<std::uint64_t> parse_megabytes(std::string_view text);

}  // namespace slowfs
