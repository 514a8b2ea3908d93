// node: what a figure needs beside it to mean anything: kernel, processor, memory, versions.
// Asks the kernel once. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace shardahead::bench {

struct Node {
  std::string kernel;             // "Linux 6.18.0"
  std::string cpu_model;          // "unknown" where the kernel does not name it
  std::uint32_t cpus = 0;         // online
  std::uint32_t usable_cpus = 0;  // those that this process may run on
  std::uint64_t memory_bytes = 0;
};

Node this_node();

const char* version() noexcept;  // of Shardahead

// The first value of a line "KEY : value" of /proc; empty where there is none.
std::string value_of(std::string_view text, std::string_view key);

}  // namespace shardahead::bench
