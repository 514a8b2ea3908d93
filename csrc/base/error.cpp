#include "base/error.h"

#include <cerrno>
#include <exception>
#include <new>
#include <system_error>
#include <utility>

namespace shardahead {

std::string IoError::message() const {
  // generic_category().message() is strerror without its shared buffer.
  return detail.empty() ? std::generic_category().message(errno_value) : detail;
}

namespace {

IoError error_in_flight(const char* operation, const std::string& path, std::uint64_t offset) {
  try {
    throw;
  } catch (const IoException& exception) {
    return exception.error();
  } catch (const std::bad_alloc&) {
    return {ENOMEM, operation, path, offset, ""};
  } catch (const std::system_error& exception) {
    return {exception.code().value(), operation, path, offset, exception.what()};
  } catch (const std::exception& exception) {
    return {EIO, operation, path, offset, exception.what()};
  } catch (...) {
    return {EIO, operation, path, offset, "an unknown exception"};
  }
}

}  // namespace

IoError caught_error(const char* operation, const std::string& path,
                     std::uint64_t offset) noexcept {
  try {
    return error_in_flight(operation, path, offset);
  } catch (const std::exception&) {
    IoError error;
    error.errno_value = ENOMEM;
    error.offset = offset;
    return error;
  }
}

IoException::IoException(IoError error)
    : std::runtime_error(error.operation + " " + error.path + ": " + error.message()),
      error_(std::move(error)) {}

}  // namespace shardahead
