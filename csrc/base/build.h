// build: with what this library was compiled. Known to the compiler alone, so nothing is asked
// here, and nothing can fail. Any thread.
#pragma once

#include <string>
#include <vector>

namespace shardahead {

// "GCC 12.2.0", "Clang 19.1.0".
const char* compiler() noexcept;
// The library of C that it runs with, "glibc 2.36", or that it was compiled for, "musl".
std::string c_library();
// Those that were switched on: "address", "thread", "undefined".
std::vector<std::string> sanitizers();
// Whether it was compiled with optimization.
bool optimized() noexcept;

}  // namespace shardahead
