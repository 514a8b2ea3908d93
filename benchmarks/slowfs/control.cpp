#include "control.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

namespace slowfs {
namespace {

constexpr double kMaxMegabytes = 1e6;
constexpr double kMaxMilliseconds = 1e9;

std::optional<double> parse_number(std::string_view text, double limit) {
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stop != end) return std::nullopt;
  if (!(value >= 0 && value <= limit)) return std::nullopt;
  return value;
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r";
  const auto begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

std::string_view take_first(std::string_view& text) {
  const std::string_view word = text.substr(0, text.find(' '));
  text = trim(text.substr(word.size()));
  return word;
}

std::string_view take_last(std::string_view& text) {
  const auto space = text.rfind(' ');
  if (space == std::string_view::npos) return std::exchange(text, {});
  const std::string_view word = text.substr(space + 1);
  text = trim(text.substr(0, space));
  return word;
}

std::optional<Command> parse_stall(std::string_view rest) {
  const auto seconds = parse_number(take_last(rest), kMaxMilliseconds / 1e3);
  const auto offset = parse_count(take_last(rest));
  if (!seconds || !offset || rest.empty()) return std::nullopt;
  return AddStall{std::string(rest), *offset, Nanoseconds{std::llround(*seconds * 1e9)}};
}

std::optional<Command> parse_bad(std::string_view rest) {
  const auto bytes = parse_count(take_last(rest));
  const auto offset = parse_count(take_last(rest));
  if (!bytes || !offset || rest.empty() || *offset + *bytes < *offset) return std::nullopt;
  return AddBad{std::string(rest), *offset, *bytes};
}

}  // namespace

std::optional<std::uint64_t> parse_count(std::string_view text) {
  std::uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stop != end) return std::nullopt;
  return value;
}

std::optional<Nanoseconds> parse_milliseconds(std::string_view text) {
  const auto value = parse_number(text, kMaxMilliseconds);
  if (!value) return std::nullopt;
  return Nanoseconds{std::llround(*value * 1e6)};
}

std::optional<std::uint64_t> parse_megabytes(std::string_view text) {
  const auto value = parse_number(text, kMaxMegabytes);
  if (!value) return std::nullopt;
  const auto bytes = static_cast<std::uint64_t>(std::llround(*value * 1e6));
  // Rounding must not turn a very slow link into an unlimited one.
  return *value > 0 && bytes == 0 ? 1 : bytes;
}

std::optional<Command> parse_command(std::string_view line) {
  std::string_view rest = trim(line);
  const std::string_view name = take_first(rest);
  if (name == "reset" && rest.empty()) return ResetCounters{};
  if (name == "clear" && rest.empty()) return ClearFaults{};
  if (name == "rate") {
    if (const auto bytes_per_s = parse_megabytes(rest)) return SetRate{*bytes_per_s};
  } else if (name == "round-trip-ms") {
    if (const auto round_trip = parse_milliseconds(rest)) return SetRoundTrip{*round_trip};
  } else if (name == "close-ms") {
    if (const auto delay = parse_milliseconds(rest)) return SetClose{*delay};
  } else if (name == "stall") {
    return parse_stall(rest);
  } else if (name == "bad") {
    return parse_bad(rest);
  } else if (name == "eio" || name == "truncate") {
    const auto count = parse_count(take_last(rest));
    if (!count || rest.empty()) return std::nullopt;
    if (name == "eio") return AddEio{std::string(rest), *count};
    return AddTruncate{std::string(rest), *count};
  }
  return std::nullopt;
}

std::optional<std::vector<Command>> parse_commands(std::string_view text) {
  std::vector<Command> commands;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (trim(line).empty()) continue;
    auto command = parse_command(line);
    if (!command) return std::nullopt;
    commands.push_back(std::move(*command));
  }
  return commands;
}

}  // namespace slowfs
