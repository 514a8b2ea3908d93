// plan: properties of random plans, the errors of bad ones, and the size of a very large one.
#include "plan/plan.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <set>
#include <stdexcept>

using namespace shardahead;

TEST_SUITE_BEGIN("plan");

namespace {

PlanOptions random_options(std::mt19937_64& random) {
  PlanOptions options;
  options.block_bytes = kMinBlockBytes + random() % (256 * kKiB);
  options.head_block_bytes = kMinBlockBytes + random() % (64 * kKiB);
  options.head_blocks_per_size = static_cast<std::uint32_t>(random() % 10);
  return options;
}

// Sizes around all that matters: nothing, a byte, less than a block, many blocks.
std::vector<PlannedFile> random_files(std::mt19937_64& random) {
  constexpr std::uint64_t kMost[] = {1, 2, 4 * kKiB + 1, 64 * kKiB, 3 * kMiB};
  std::vector<PlannedFile> files(random() % 12);
  for (PlannedFile& file : files) {
    file.size_bytes = random() % kMost[random() % std::size(kMost)];
    if (random() % 2 == 0) continue;
    file.spans.emplace(random() % 6);
    for (ByteRange& span : *file.spans) span = {random() % (2 * kMiB), random() % (256 * kKiB)};
  }
  return files;
}

std::string error_of(std::vector<PlannedFile> files, const PlanOptions& options) {
  try {
    const Plan plan(std::move(files), options);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

void contains(const std::string& text, const std::string& part) {
  CAPTURE(text);
  CHECK(text.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("blocks tile all files exactly, in order, whatever is wanted") {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    const auto files = random_files(random);
    const Plan plan(files, random_options(random));
    std::uint64_t total_bytes = 0;
    std::size_t block = 0;
    for (std::uint32_t file = 0; file < files.size(); ++file) {
      std::uint64_t at = 0;
      for (; block < plan.blocks().size() && plan.blocks()[block].file == file; ++block) {
        const ByteRange range = plan.blocks()[block].range;
        REQUIRE(range.offset == at);
        REQUIRE_FALSE(range.empty());
        REQUIRE(plan.position(file, at) == total_bytes + at);
        at = range.end();
      }
      REQUIRE(at == files[file].size_bytes);
      total_bytes += at;
    }
    REQUIRE(block == plan.blocks().size());
    REQUIRE(total_bytes == plan.total_bytes());
  }
}

TEST_CASE("blocks start at whole pages and are never longer than block_bytes") {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    const auto options = random_options(random);
    const Plan plan(random_files(random), options);
    for (const Block& block : plan.blocks()) {
      REQUIRE(block.range.offset % (4 * kKiB) == 0);
      REQUIRE(block.range.length <= options.block_bytes);
    }
  }
}

TEST_CASE("blocks at the head are small and double") {
  const PlanOptions options{8 * kMiB, 1 * kMiB, 2};
  const Plan plan({{100 * kMiB, std::nullopt}}, options);
  std::vector<std::uint64_t> sizes_mib;
  for (const Block& block : plan.blocks()) sizes_mib.push_back(block.range.length / kMiB);
  const std::vector<std::uint64_t> head(sizes_mib.begin(), sizes_mib.begin() + 10);
  CHECK(head == std::vector<std::uint64_t>{1, 1, 2, 2, 2, 4, 4, 8, 8, 8});
}

TEST_CASE("within a file blocks end at multiples of their size") {
  for (const std::uint64_t block_mib : {12U, 15U, 16U, 32U, 64U}) {
    CAPTURE(block_mib);
    PlanOptions options;
    options.block_bytes = block_mib * kMiB;
    const Plan plan({{3 * kMiB + 5, std::nullopt}, {kGiB, std::nullopt}}, options);
    std::uint64_t largest_bytes = 0;
    for (const Block& block : plan.blocks()) {
      largest_bytes = std::max(largest_bytes, block.range.length);
      if (block.range.length < options.block_bytes) continue;
      REQUIRE(block.range.offset % options.block_bytes == 0);
    }
    CHECK(largest_bytes == options.block_bytes);
  }
}

TEST_CASE("without head blocks all are of the full size") {
  const Plan plan({{64 * kMiB, std::nullopt}}, {16 * kMiB, 1 * kMiB, 0});
  CHECK(plan.blocks().size() == 4);
}

TEST_CASE("what is wanted is the spans, each byte once") {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    const auto files = random_files(random);
    const Plan plan(files, random_options(random));
    std::vector<std::vector<ByteRange>> wanted(files.size());
    for (const Block& block : plan.blocks()) {
      std::uint64_t bytes = 0;
      for (const ByteRange& part : plan.wanted(block)) {
        REQUIRE(intersect(part, block.range) == part);
        bytes += part.length;
        wanted[block.file].push_back(part);
      }
      REQUIRE(bytes == plan.wanted_bytes(block));
    }
    for (std::size_t file = 0; file < files.size(); ++file) {
      const ByteRange whole = {0, files[file].size_bytes};
      const auto spans = files[file].spans.value_or(std::vector<ByteRange>{whole});
      REQUIRE(merge_ranges(wanted[file]) == merge_ranges(intersect(merge_ranges(spans), whole)));
    }
  }
}

TEST_CASE("the blocks under a range are those that hold its bytes") {
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    const Plan plan(random_files(random), random_options(random));
    for (std::uint32_t file = 0; file < plan.files().size(); ++file) {
      const ByteRange range = {random() % (3 * kMiB), random() % (1 * kMiB)};
      const BlockRange under = plan.blocks_under(file, range);
      for (std::uint32_t index = 0; index < plan.blocks().size(); ++index) {
        const Block& block = plan.blocks()[index];
        const bool holds = block.file == file && !intersect(block.range, range).empty();
        CHECK(holds == (index >= under.begin && index < under.end));
      }
    }
  }
}

TEST_CASE("the shares of all ranks are disjoint and are all wanted blocks") {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    const Plan plan(random_files(random), random_options(random));
    std::set<std::uint32_t> wanted;
    for (std::uint32_t index = 0; index < plan.blocks().size(); ++index) {
      if (plan.wanted_bytes(plan.blocks()[index]) > 0) wanted.insert(index);
    }
    const auto local_size = static_cast<std::int64_t>(1 + random() % 9);
    for (const Partition partition : {Partition::block, Partition::file}) {
      std::set<std::uint32_t> dealt;
      for (std::int64_t rank = 0; rank < local_size; ++rank) {
        const auto share = share_of(plan, partition, rank, local_size);
        REQUIRE(std::is_sorted(share.begin(), share.end()));
        for (const std::uint32_t index : share) REQUIRE(dealt.insert(index).second);
      }
      REQUIRE(dealt == wanted);
    }
  }
}

TEST_CASE("partition by file keeps each file with one rank") {
  const Plan plan({{3 * kMiB, {}}, {3 * kMiB, {}}, {3 * kMiB, {}}}, {1 * kMiB, 1 * kMiB, 1});
  for (const std::uint32_t index : share_of(plan, Partition::file, 1, 2)) {
    CHECK(plan.blocks()[index].file == 1);
  }
  CHECK(share_of(plan, Partition::file, 0, 2).size() == 6);
}

TEST_CASE("errors name the option and its value") {
  const std::vector<PlannedFile> files = {{kMiB, std::nullopt}};
  contains(error_of(files, {4095, kMiB, 8}), "block_");
  contains(error_of(files, {4095, kMiB, 8}), "4095");
  contains(error_of(files, {kGiB + 1, kMiB, 8}), "1073741825");
  contains(error_of(files, {kMiB, 7, 8}), "head_block_bytes");
  contains(error_of(files, {kMiB, 7, 8}), "not 7");
  contains(error_of({{std::uint64_t{1} << 40, std::nullopt}}, {4096, 4096, 8}), "4096");
}

TEST_CASE("errors of a share name the argument and its value") {
  const Plan plan({{kMiB, std::nullopt}}, {});
  CHECK_THROWS_WITH_AS(share_of(plan, Partition::block, 0, 0),
                       "local_size must be at least 1, not 0", std::invalid_argument);
  for (const std::int64_t rank : {-1, 4}) {
    CHECK_THROWS_AS(share_of(plan, Partition::block, rank, 4), std::invalid_argument);
  }
}

TEST_CASE("small head blocks cannot get round the limit on blocks") {
  const PlanOptions options{1 * kGiB, 4096, std::numeric_limits<std::uint32_t>::max()};
  const std::string error = error_of({{kGiB, std::nullopt}}, options);
  contains(error, "head_blocks_per_size");
  contains(error, "4294967295");
}

TEST_CASE("sparse files whose sizes add up to more than 64 bits can hold are refused") {
  constexpr std::uint64_t kLargestFile = (std::uint64_t{1} << 63U) - 1;
  contains(error_of({{kLargestFile, {}}, {kLargestFile, {}}, {2, {}}}, {}), "bytes together");
  contains(error_of({{kMaxBlocks * kMaxBlockBytes + 1, {}}}, {}), "bytes together");
}

TEST_CASE("spans that end beyond 64 bits end with their file") {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
  const Plan plan({{100, std::vector<ByteRange>{{kMost, 2}, {90, kMost}, {50, 5}}}}, {});
  CHECK(plan.wanted(plan.blocks().front()) == std::vector<ByteRange>{{50, 5}, {90, 10}});
}

TEST_CASE("2 TB in 1,433 files at 16 MiB fits in 32 MiB") {
  constexpr std::uint64_t kFiles = 1433;
  constexpr std::uint64_t kFileBytes = 2'000'000'000'000 / kFiles;
  const Plan plan(std::vector<PlannedFile>(kFiles, {kFileBytes, std::nullopt}), {});
  CHECK(plan.blocks().size() * sizeof(Block) <= 32 * kMiB);
  CHECK(plan.total_bytes() == kFiles * kFileBytes);
}

TEST_CASE("positions lead back to the files, past empty ones") {
  const Plan plan({{100, {}}, {0, {}}, {50, {}}, {200, {}}}, {});
  const auto parts = [&](ByteRange positions) {
    std::vector<std::pair<std::uint32_t, ByteRange>> found;
    for (const auto& [file, range] : plan.files_under(positions)) found.emplace_back(file, range);
    return found;
  };
  using Parts = std::vector<std::pair<std::uint32_t, ByteRange>>;
  CHECK(parts({0, 100}) == Parts{{0, {0, 100}}});
  CHECK(parts({99, 2}) == Parts{{0, {99, 1}}, {2, {0, 1}}});
  CHECK(parts({100, 50}) == Parts{{2, {0, 50}}});
  CHECK(parts({120, 1000}) == Parts{{2, {20, 30}}, {3, {0, 200}}});
  CHECK(parts({10, 0}).empty());
  CHECK(parts({350, 10}).empty());
  CHECK(Plan({}, {}).files_under({0, 10}).empty());
}

TEST_CASE("partitions have names") {
  CHECK(partition_from("block") == Partition::block);
  CHECK(partition_from("file") == Partition::file);
  CHECK_FALSE(partition_from("rank"));
  CHECK(std::string(to_string(Partition::file)) == "file");
}

TEST_SUITE_END();
