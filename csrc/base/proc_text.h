// proc_text: the small texts of /proc and /sys, read whole and taken apart. What the words mean is
// for those who ask. No state; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace shardahead {

// All that a small text file holds; nothing where it cannot be read.
std::optional<std::string> file_text(const std::string& path);

// The parts between the separators, as views into `text`; empty ones are kept.
std::vector<std::string_view> split(std::string_view text, char separator);

// The number at the beginning of the text, whatever follows it.
std::optional<std::uint64_t> leading_number(std::string_view text);

// A whole number without a sign and without a unit, and nothing else.
std::optional<std::uint64_t> parse_count(std::string_view text);

// The number after `key` in lines of "key number" or "key: number kB", in bytes.
std::optional<std::uint64_t> value_of(std::string_view text, std::string_view key);

// What a symbolic link says; empty where it cannot be read.
std::string link_target(const std::string& path);

}  // namespace shardahead
