// Pages of another size for what is simulated: the linker puts this in the place of page_bytes(),
// except in file_io.cpp, where the kernel's own pages count. SHARDAHEAD_TEST_PAGE_BYTES; for the
// suites that ask no real file about its pages.
#include <cstdint>
#include <cstdlib>

// As the compiler calls shardahead::page_bytes().
extern "C" {
std::uint64_t __real__ZN10shardahead10page_bytesEv();
std::uint64_t __wrap__ZN10shardahead10page_bytesEv();

std::uint64_t __wrap__ZN10shardahead10page_bytesEv() {
  static const std::uint64_t bytes = [] {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing sets it while tests run
    const char* asked = std::getenv("SHARDAHEAD_TEST_PAGE_BYTES");
    return asked == nullptr ? __real__ZN10shardahead10page_bytesEv()
                            : std::strtoull(asked, nullptr, 10);
  }();
  return bytes;
}
}
