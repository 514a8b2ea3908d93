// kernel_features: what the kernel is said to have, against what it does when it is asked for it.
#include "node/kernel_features.h"

#include <doctest/doctest.h>
#include <sys/utsname.h>

#include "base/build.h"
#include "node/file_io.h"
#include "node/mount_number.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("kernel_features");

TEST_CASE("what it is said to have, it does") {
  const KernelFeatures found = kernel_features();
  utsname names{};
  REQUIRE(::uname(&names) == 0);
  CHECK(found.release == names.release);
  const TemporaryFolder folder;
  FileIo& io = system_file_io();
  const int descriptor = io.open(folder.write("file", page_bytes()));
  REQUIRE(descriptor >= 0);
  CHECK(found.cachestat == (io.cachestat(descriptor, {0, page_bytes()}) >= 0));
  std::byte* memory = nullptr;
  REQUIRE(io.map(descriptor, page_bytes(), MappedFor::use, memory) == 0);
  CHECK(found.populate_read == (io.fault_in(memory, page_bytes()) == 0));
  std::byte copied{};
  CHECK(found.process_vm_readv == (io.copy_mapped(memory, 1, &copied) == 1));
  MountNumber number;
  CHECK(found.mount_ids == (mount_number(descriptor, WantedNumber::unique, number) == 0));
  CHECK(found.unique_mount_ids == number.unique);
  CHECK(io.unmap(memory, page_bytes()) == 0);
  CHECK(io.close(descriptor) == 0);
}

TEST_CASE("the sanitizers of these tests are those that they were compiled with") {
  CHECK(std::string(compiler()).find(' ') != std::string::npos);
  CHECK_FALSE(c_library().empty());
#ifdef __SANITIZE_ADDRESS__
  CHECK(sanitizers() == std::vector<std::string>{"address", "undefined"});
#elif defined(__SANITIZE_THREAD__)
  CHECK(sanitizers() == std::vector<std::string>{"thread"});
#else
  CHECK(sanitizers().empty());
#endif
}
