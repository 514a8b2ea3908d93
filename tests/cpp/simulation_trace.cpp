#include "simulation_trace.h"

#include <array>
#include <cstdio>

namespace shardahead::testing {

void Trace::add(std::chrono::steady_clock::time_point now, std::uint32_t rank,
                std::string_view what, std::uint64_t first, std::uint64_t second,
                std::uint64_t third) {
  const auto mix = [&](std::uint64_t value) {
    hash_ = (hash_ ^ value) * 0x100000001b3;
    hash_ ^= hash_ >> 32U;
  };
  const auto nanoseconds = static_cast<std::uint64_t>(now.time_since_epoch().count());
  for (const std::uint64_t value : {nanoseconds, std::uint64_t{rank}, first, second, third}) {
    mix(value);
  }
  for (const char character : what) mix(static_cast<unsigned char>(character));
  ++events_;
  if (!keeps_text_) return;
  std::array<char, 160> line{};
  const int length = std::snprintf(
      line.data(), line.size(), "%12.6f rank %u %.*s %llu %llu %llu\n",
      static_cast<double>(nanoseconds) * 1e-9, rank, static_cast<int>(what.size()), what.data(),
      static_cast<unsigned long long>(first), static_cast<unsigned long long>(second),
      static_cast<unsigned long long>(third));
  text_.append(line.data(), static_cast<std::size_t>(length));
}

}  // namespace shardahead::testing
