// limit: what kept a load from being faster, as far as that is known. A word of the report. Any
// thread.
#pragma once

#include <cstdint>

namespace shardahead {

enum class Limit : std::uint32_t {
  unknown,  // nothing has been found: too little was read, or more in flight still brings more
  storage,  // more in flight brought no more
  threads,  // less was in flight than might have been, and no more was tried
  inflight_bytes,  // somebody set what may be in flight, so nothing was tried
  rate_limit,      // as much was read as it allows
};

const char* to_string(Limit limit) noexcept;

}  // namespace shardahead
