#include "base/build.h"

#include <climits>  // of glibc, so that it says that it is

#ifdef __GLIBC__
#include <gnu/libc-version.h>
#endif

#ifndef __has_feature
#define __has_feature(feature) 0  // GCC before 14
#endif

namespace shardahead {

const char* compiler() noexcept {
#if defined(__clang__)
  return "Clang " __clang_version__;
#else
  return "GCC " __VERSION__;
#endif
}

std::string c_library() {
#ifdef __GLIBC__
  return std::string("glibc ") + ::gnu_get_libc_version();
#else
  return "musl";
#endif
}

std::vector<std::string> sanitizers() {
  std::vector<std::string> found;
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
  found.emplace_back("address");
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
  found.emplace_back("thread");
#endif
#if defined(SHARDAHEAD_SANITIZES_UNDEFINED) || __has_feature(undefined_behavior_sanitizer)
  found.emplace_back("undefined");
#endif
  return found;
}

bool optimized() noexcept {
#ifdef __OPTIMIZE__
  return true;
#else
  return false;
#endif
}

}  // namespace shardahead
