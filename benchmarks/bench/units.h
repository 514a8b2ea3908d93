// units: byte counts as people write and read them, and text that any terminal takes. The same
// words as python/shardahead/units.py. Pure functions; no I/O. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace shardahead::bench {

// "16777216", "16MiB", "16M" (both 2^24), "16MB" (10^6), "1.5GiB"; nothing where it is not a whole
// number of bytes with a known unit.
std::optional<std::uint64_t> parse_bytes(std::string_view text);

// Binary units, three significant digits: "1.50 GiB", "512 B".
std::string format_bytes(std::uint64_t count);

// 10^6 bytes per second: "1,250 MB/s", "309 MB/s", "5.2 MB/s", "0.45 MB/s". As the Python side.
std::string format_rate(double bytes_per_second);

// The same without the unit, for a column that names it.
std::string rate_number(double bytes_per_second);

// The shortest exact form that parse_bytes takes: "16MiB", "1GiB", "4097".
std::string exact_bytes(std::uint64_t count);

// "1 thread", "4 threads"
std::string counted(std::uint64_t count, std::string_view thing);

std::string format_fixed(double value, int decimals);

// Controls are escaped, so that a file name cannot drive the terminal.
std::string printable(std::string_view text);

// Printable and in quotes, as a message names a file.
std::string quoted_name(std::string_view text);

// In single quotes where a shell would not take it as one word.
std::string shell_quoted(std::string_view text);

std::string joined(const std::vector<std::string>& parts, std::string_view separator);

}  // namespace shardahead::bench
