#include "base/json_scan.h"

#include <algorithm>

namespace shardahead {
namespace {

// The end of the string that begins at `begin`, or of the text.
std::size_t end_of_string(std::string_view text, std::size_t begin) noexcept {
  std::size_t at = begin + 1;
  while (at < text.size() && text[at] != '"') at += text[at] == '\\' ? 2U : 1U;
  return at;
}

}  // namespace

JsonExtent scan_json(std::string_view text) noexcept {
  JsonExtent found{.values = 1};
  std::size_t depth = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    switch (text[at]) {
      case '"': at = end_of_string(text, at); break;
      case '{': ++found.objects; [[fallthrough]];
      case '[':
        ++found.values;
        found.depth = std::max(found.depth, ++depth);
        break;
      case '}':
      case ']':
        if (depth > 0) --depth;
        break;
      case ',': ++found.values; break;
      default: break;
    }
  }
  return found;
}

}  // namespace shardahead
