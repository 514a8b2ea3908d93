#include "engine/fetch_result.h"

#include <algorithm>
#include <utility>

namespace shardahead {

void count_noted(FetchResult& result, std::uint64_t& noted_bytes, bool done_before) noexcept {
  const std::uint64_t resident = std::min(noted_bytes, result.resident_bytes);
  noted_bytes -= resident;
  std::uint64_t& came_bytes = done_before ? result.shared_bytes : result.read_bytes;
  came_bytes += result.resident_bytes - resident;
  result.resident_bytes = resident;
}

void count_at_most(FetchResult& result, std::uint64_t most_bytes) noexcept {
  for (std::uint64_t* counter :
       {&result.resident_bytes, &result.shared_bytes, &result.read_bytes, &result.failed_bytes}) {
    *counter = std::min(*counter, most_bytes);
    most_bytes -= *counter;
  }
  result.lost_bytes = std::min(result.lost_bytes, result.read_bytes);
}

}  // namespace shardahead
