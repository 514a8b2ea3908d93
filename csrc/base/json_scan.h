// json_scan: how much a JSON text would become, before it is parsed: a parser allots dozens of
// bytes for what is one byte of text. It checks nothing else, and takes any bytes. Pure.
#pragma once

#include <cstddef>
#include <string_view>

namespace shardahead {

struct JsonExtent {
  std::size_t values = 0;   // no fewer than there are: of any kind, but for the names in objects
  std::size_t objects = 0;  // of these
  std::size_t depth = 0;    // of objects and arrays in one another
};

JsonExtent scan_json(std::string_view text) noexcept;

}  // namespace shardahead
