#include "base/limit.h"

namespace shardahead {

const char* to_string(Limit limit) noexcept {
  switch (limit) {
    case Limit::storage: return "storage";
    case Limit::threads: return "threads";
    case Limit::inflight_bytes: return "inflight_bytes";
    case Limit::rate_limit: return "rate_limit";
    case Limit::unknown: break;
  }
  return "unknown";
}

}  // namespace shardahead
