#include "error.h"

#include <system_error>
#include <utility>

namespace shardahead {

std::string IoError::message() const {
  // generic_category().message() is strerror without its shared buffer.
  return detail.empty() ? std::generic_category().message(errno_value) : detail;
}

IoException::IoException(IoError error)
    : std::runtime_error(error.operation + " " + error.path + ": " + error.message()),
      error_(std::move(error)) {}

}  // namespace shardahead
