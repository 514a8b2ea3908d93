// simulation_trace: what happened in a simulation, in order: always as a hash, on request as text.
// Two runs of a seed are the same if their hashes are. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace shardahead::testing {

class Trace {
 public:
  explicit Trace(bool keeps_text) : keeps_text_(keeps_text) {}

  void add(std::chrono::steady_clock::time_point now, std::uint32_t rank, std::string_view what,
           std::uint64_t first = 0, std::uint64_t second = 0, std::uint64_t third = 0);

  [[nodiscard]] std::uint64_t hash() const noexcept { return hash_; }
  [[nodiscard]] std::uint64_t events() const noexcept { return events_; }
  [[nodiscard]] const std::string& text() const noexcept { return text_; }

 private:
  bool keeps_text_;
  std::uint64_t hash_ = 0xcbf29ce484222325;
  std::uint64_t events_ = 0;
  std::string text_;
};

}  // namespace shardahead::testing
