#include "units.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <numeric>

#include "base/proc_text.h"

namespace shardahead::bench {
namespace {

constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
constexpr std::size_t kMaxDecimals = 18;  // 10^18 is the last power of ten in 64 bits

struct Unit {
  std::string_view name;
  std::uint64_t bytes;
};

constexpr std::array<Unit, 14> kUnits{{{"", 1},
                                       {"b", 1},
                                       {"k", 1ULL << 10U},
                                       {"kib", 1ULL << 10U},
                                       {"kb", 1'000},
                                       {"m", 1ULL << 20U},
                                       {"mib", 1ULL << 20U},
                                       {"mb", 1'000'000},
                                       {"g", 1ULL << 30U},
                                       {"gib", 1ULL << 30U},
                                       {"gb", 1'000'000'000},
                                       {"t", 1ULL << 40U},
                                       {"tib", 1ULL << 40U},
                                       {"tb", 1'000'000'000'000}}};

std::string_view stripped(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\n\r\f\v";
  const auto first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

// The bytes of "0.DECIMALS" of a unit; nothing where they are not whole.
std::optional<std::uint64_t> fraction_of(std::string_view decimals, std::uint64_t unit_bytes) {
  decimals = decimals.substr(0, decimals.find_last_not_of('0') + 1);
  if (decimals.empty()) return 0;
  if (decimals.size() > kMaxDecimals) return std::nullopt;
  std::uint64_t denominator = 1;
  for (std::size_t i = 0; i < decimals.size(); ++i) denominator *= 10;
  const std::uint64_t numerator = parse_count(decimals).value_or(0);
  const std::uint64_t common = std::gcd(numerator, denominator);
  if (unit_bytes % (denominator / common) != 0) return std::nullopt;
  return numerator / common * (unit_bytes / (denominator / common));
}

}  // namespace

std::optional<std::uint64_t> parse_bytes(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789";
  text = stripped(text);
  const std::size_t number_end = std::min(text.find_first_not_of("0123456789."), text.size());
  const std::string_view number = text.substr(0, number_end);
  std::string name(stripped(text.substr(number_end)));
  for (char& letter : name) {
    if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
  }
  const auto* const unit = std::find_if(kUnits.begin(), kUnits.end(),
                                        [&](const Unit& known) { return known.name == name; });
  if (unit == kUnits.end()) return std::nullopt;
  const std::size_t point = number.find('.');
  const auto whole = parse_count(number.substr(0, point));
  if (!whole || *whole > kMost / unit->bytes) return std::nullopt;
  if (point == std::string_view::npos) return *whole * unit->bytes;
  const std::string_view decimals = number.substr(point + 1);
  if (decimals.empty() || decimals.find_first_not_of(kDigits) != std::string_view::npos) {
    return std::nullopt;
  }
  const auto rest = fraction_of(decimals, unit->bytes);
  if (!rest || *rest > kMost - *whole * unit->bytes) return std::nullopt;
  return *whole * unit->bytes + *rest;
}

std::string format_fixed(double value, int decimals) {
  std::array<char, 400> buffer{};  // more than the longest double takes
  const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                          std::chars_format::fixed, decimals);
  return error == std::errc{} ? std::string(buffer.data(), end) : "-";
}

std::string format_bytes(std::uint64_t count) {
  auto value = static_cast<double>(count);
  for (const char* unit : {"B", "KiB", "MiB", "GiB"}) {
    if (value < 1024) {
      int decimals = 0;
      if (unit[0] != 'B' && value < 99.95) decimals = value < 9.995 ? 2 : 1;
      return format_fixed(value, decimals) + " " + unit;
    }
    value /= 1024;
  }
  return format_fixed(value, 2) + " TiB";
}

std::string rate_number(double bytes_per_second) {
  const double megabytes = bytes_per_second / 1e6;
  int decimals = 2;
  if (megabytes >= 0.995) decimals = 1;
  if (megabytes >= 9.95 || megabytes == 0) decimals = 0;
  std::string text = format_fixed(megabytes, decimals);
  if (decimals > 0) return text;
  std::string grouped;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (i > 0 && (text.size() - i) % 3 == 0) grouped += ',';
    grouped += text[i];
  }
  return grouped;
}

std::string format_rate(double bytes_per_second) { return rate_number(bytes_per_second) + " MB/s"; }

std::string exact_bytes(std::uint64_t count) {
  for (const auto& [unit, shift] : {std::pair{"GiB", 30U}, {"MiB", 20U}, {"KiB", 10U}}) {
    if (count > 0 && count % (1ULL << shift) == 0) return std::to_string(count >> shift) + unit;
  }
  return std::to_string(count);
}

std::string counted(std::uint64_t count, std::string_view thing) {
  return std::to_string(count) + " " + std::string(thing) + (count == 1 ? "" : "s");
}

std::string printable(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string escaped;
  for (const char letter : text) {
    const auto code = static_cast<unsigned char>(letter);
    if (code >= 0x20 && code != 0x7f) {
      escaped += letter;
    } else {
      escaped += {'\\', 'x', kHex[code / 16], kHex[code % 16]};
    }
  }
  return escaped;
}

std::string quoted_name(std::string_view text) {
  const bool single = text.find('\'') == std::string_view::npos;
  const char* const mark = single || text.find('"') != std::string_view::npos ? "'" : "\"";
  return mark + printable(text) + mark;
}

std::string shell_quoted(std::string_view text) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,@%+";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string_view::npos) {
    return std::string(text);
  }
  std::string quoted = "'";
  for (const char letter : text) {
    if (letter == '\'') {
      quoted += "'\\''";
    } else {
      quoted += letter;
    }
  }
  return quoted + "'";
}

std::string joined(const std::vector<std::string>& parts, std::string_view separator) {
  std::string text;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) text += separator;
    text += parts[i];
  }
  return text;
}

}  // namespace shardahead::bench
