// mappings: the files of a plan as the consumers of this process have mapped them.
#include "engine/mappings.h"

#include <doctest/doctest.h>

#include <stdexcept>
#include <vector>

#include "faulty_file_io.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("mappings");

TEST_CASE("a file is mapped once, for as long as anyone has it") {
  const TemporaryFolder folder;
  FileTable files(system_file_io(), {folder.write("a", 10'000), folder.write("b", 20'000)}, 8);
  Mappings mappings(files, system_runtime());
  CHECK_FALSE(mappings.find(0));
  auto mapped = mappings.map(0);
  CHECK(mapped->size_bytes() == 10'000);
  CHECK(mappings.map(0) == mapped);
  CHECK(mappings.find(0) == mapped);
  CHECK_FALSE(mappings.find(1));
  CHECK(mappings.map(1) != mapped);
  const std::weak_ptr<MappedFile> gone = mapped;
  mapped.reset();
  CHECK(gone.expired());
  CHECK_FALSE(mappings.find(0));
  CHECK(mappings.map(0)->size_bytes() == 10'000);
}

TEST_CASE("where faults alone bring them in, the kernel reads farther ahead of those") {
  const TemporaryFolder folder;
  std::vector<int> advised;
  class Noted final : public FaultyFileIo {
   public:
    Noted(std::vector<int>& advised) : FaultyFileIo(system_file_io()), advised_(advised) {}
    int fadvise_sequential(int descriptor) noexcept override {
      advised_.push_back(descriptor);
      return FaultyFileIo::fadvise_sequential(descriptor);
    }

   private:
    std::vector<int>& advised_;
  } io(advised);
  FileTable files(io, {folder.write("a", 1000), folder.write("b", 1000), folder.write("c", 1000)},
                  8);
  Mappings mappings(files, system_runtime());
  const auto before = mappings.map(0);
  const auto untouched = files.acquire(2);
  CHECK(advised.empty());
  mappings.fault_alone();
  CHECK(advised == std::vector<int>{files.acquire(0)->descriptor()});
  const auto after = mappings.map(1);
  CHECK(advised.size() == 2);
  CHECK(advised.back() == files.acquire(1)->descriptor());
}

TEST_CASE("a file that there is not is no mapping") {
  const TemporaryFolder folder;
  FileTable files(system_file_io(), {folder.write("a", 1000)}, 8);
  Mappings mappings(files, system_runtime());
  CHECK_THROWS_AS(mappings.map(1), std::out_of_range);
  CHECK_THROWS_AS((void)mappings.find(1), std::out_of_range);
}

TEST_SUITE_END();
