// error: what went wrong with a file, kept whole: errno, operation, path and offset travel
// together. Not a logger: the core never prints and never aborts. Values are plain, any thread.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace shardahead {

struct IoError {
  int errno_value = 0;
  std::string operation;  // "open", "fstat", "pread", "fadvise", ...
  std::string path;       // bytes as the caller gave them; need not be UTF-8
  std::uint64_t offset = 0;
  std::string detail;  // what errno does not say, may be empty

  // "Input/output error", or the detail where there is one.
  [[nodiscard]] std::string message() const;
};

// Within a catch block: what was caught, as an error of this file. Without memory for its texts
// they are empty: whoever records what a thread met must not end the process over it.
IoError caught_error(const char* operation, const std::string& path, std::uint64_t offset) noexcept;

// Thrown only while a prefetch is being set up, on the caller's thread: workers record instead.
class IoException : public std::runtime_error {
 public:
  explicit IoException(IoError error);
  [[nodiscard]] const IoError& error() const noexcept { return error_; }

 private:
  IoError error_;
};

}  // namespace shardahead
