#include "engine/fetch_result.h"

#include <algorithm>
#include <utility>

namespace shardahead {

void count_tried(FetchResult& result, std::uint64_t& tried_bytes) noexcept {
  const std::uint64_t tried = std::min(tried_bytes, result.resident_bytes);
  tried_bytes -= tried;
  result.resident_bytes -= tried;
  result.read_bytes += tried;
}

void count_at_most(FetchResult& result, std::uint64_t most_bytes) noexcept {
  for (std::uint64_t* counter :
       {&result.resident_bytes, &result.read_bytes, &result.failed_bytes}) {
    *counter = std::min(*counter, most_bytes);
    most_bytes -= *counter;
  }
  result.lost_bytes = std::min(result.lost_bytes, result.read_bytes);
}

}  // namespace shardahead
