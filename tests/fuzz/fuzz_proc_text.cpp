// Any text: the parts of a split are the text, and a number is what strtoull makes of its digits.
#include <cerrno>
#include <string>

#include "base/proc_text.h"
#include "fuzz_input.h"

using namespace shardahead;
using fuzzing::require;

int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  fuzzing::FuzzInput input(bytes, size);
  const auto separator = static_cast<char>(input.byte());
  const std::string_view text = input.text();
  std::string joined;
  for (const std::string_view part : split(text, separator)) {
    require(part.find(separator) == std::string_view::npos, "no part has a separator in it");
    joined.append(part).push_back(separator);
  }
  joined.pop_back();
  require(joined == text, "the parts joined are the text");

  const std::string digits(text.substr(0, text.find_first_not_of("0123456789")));
  errno = 0;
  const std::uint64_t expected = std::strtoull(digits.c_str(), nullptr, 10);
  const bool is_number = !digits.empty() && errno == 0;
  const auto leading = leading_number(text);
  require(leading.has_value() == is_number, "a number is found where there is one");
  require(!leading || *leading == expected, "the number is that of its digits");
  const auto count = parse_count(text);
  require(count.has_value() == (is_number && digits.size() == text.size()),
          "a count is all digits");
  require(!count || *count == expected, "the count is that of its digits");
  return 0;
}
