// What the threads of the core do when they get no memory: each allocation of theirs fails once,
// in turn, and then all from there on. Nothing that a thread meets may end the process, and what it
// could not do is an error, of a block or of a tensor.
#include <doctest/doctest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "board/board.h"
#include "engine/engine.h"
#include "failing_new.h"
#include "reader/tensor_reader.h"
#include "test_support.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("no_memory");

namespace {

constexpr std::uint64_t kFileBytes = 256 * kKiB;

struct Shards {
  Shards() {
    for (const char* name : {"0", "1", "2"}) paths.push_back(folder.write(name, kFileBytes));
  }
  TemporaryFolder folder;
  std::vector<std::string> paths;
};

// Calls `attempt` until no allocation of its threads has failed: so each of them has, once.
template <typename Attempt>
void with_each_allocation_failing(Attempt attempt) {
  for (const Fails fails : {Fails::once, Fails::from_then_on}) {
    bool failed = true;
    for (std::uint64_t number = 0; failed; ++number) {
      CAPTURE(number);
      REQUIRE(number < 100'000);
      failed = attempt(number, fails);
    }
  }
}

void require_no_memory(const std::optional<IoError>& error) {
  if (error) CHECK(error->errno_value == ENOMEM);
}

struct Load {
  Load(const Shards& shards, const EngineOptions& options, bool on_board)
      : files(std::make_shared<FileTable>(system_file_io(), shards.paths, 2)) {
    PlanOptions cut;
    cut.block_bytes = cut.head_block_bytes = 64 * kKiB;
    // Of the second file two parts are wanted, of which one crosses two blocks.
    plan = std::make_shared<const Plan>(
        std::vector<PlannedFile>{
            {kFileBytes, {}}, {kFileBytes, {{{0, 4096}, {60 * kKiB, 8 * kKiB}}}}, {kFileBytes, {}}},
        cut);
    BoardRefusal refusal;
    std::vector<std::uint32_t> wanted = share_of(*plan, Partition::block, 0, 1);
    std::unique_ptr<Claims> claims = std::make_unique<StaticClaims>(plan, wanted);
    if (on_board) {
      claims = BoardClaims::join(shards.folder.path(""), "board", plan, wanted, refusal);
      REQUIRE(claims);
    }
    engine = std::make_unique<Engine>(system_file_io(), plan, files, std::move(claims), options);
  }

  std::shared_ptr<FileTable> files;
  std::shared_ptr<const Plan> plan;
  std::unique_ptr<Engine> engine;
};

}  // namespace

TEST_CASE("the workers of a prefetch, and the threads that read for its consumer") {
  const Shards shards;
  const auto budget = [] {
    return std::optional<std::uint64_t>(std::string(64, ' ').size() * kMiB);
  };
  for (const bool on_board : {false, true}) {
    const Strategy strategy = on_board ? Strategy::pread : Strategy::automatic;
    const EngineOptions options = {
        .strategy = strategy, .threads = 2, .consumer = true, .memory_budget = budget};
    CAPTURE(on_board);
    with_each_allocation_failing([&](std::uint64_t number, Fails fails) {
      fail_allocation(number, fails);
      const Load load(shards, options, on_board);
      Engine& engine = *load.engine;
      for (std::size_t file = 0; file < shards.paths.size(); ++file) {
        require_no_memory(engine.make_resident(file, {0, kFileBytes}, [] {}));
      }
      engine.keeping([] {});
      REQUIRE(engine.wait(kHangBound));
      const bool failed = stop_failing();
      const Report report = engine.report();
      CHECK(report.settled_bytes() <= report.planned_bytes);
      for (const IoError& error : report.errors) CHECK(error.errno_value == ENOMEM);
      CHECK((failed || report.settled_bytes() == report.planned_bytes));
      for (std::size_t file = 0; file < shards.paths.size(); ++file) {
        CHECK_FALSE(engine.make_resident(file, {0, kFileBytes}, [] {}));
      }
      return failed;
    });
  }
}

TEST_CASE("the thread that tries the mount where no worker does") {
  const Shards shards;
  with_each_allocation_failing([&](std::uint64_t number, Fails fails) {
    const auto files = std::make_shared<FileTable>(system_file_io(), shards.paths, 1);
    const auto plan =
        std::make_shared<const Plan>(std::vector<PlannedFile>{{kFileBytes, {}}}, PlanOptions{});
    fail_allocation(number, fails);
    Engine engine(system_file_io(), plan, files,
                  std::make_unique<StaticClaims>(plan, std::vector<std::uint32_t>{}), {});
    const Keeping found = engine.keeping([] {});
    CHECK((found == Keeping::unknown || found == Keeping::keeps));
    return stop_failing();
  });
}

TEST_CASE("the threads that read tensors") {
  const Shards shards;
  for (const bool through_mappings : {false, true}) {
    with_each_allocation_failing([&](std::uint64_t number, Fails fails) {
      fail_allocation(number, fails);
      TensorReader reader(system_file_io(), shards.paths,
                          {.threads = 2, .through_mappings = through_mappings});
      reader.wait_opened([] {});
      std::vector<TensorReader::Part> parts;
      for (std::size_t file = 0; file < shards.paths.size(); ++file) {
        parts.push_back(reader.add_header(file));
        parts.push_back(reader.add(file, 8, {1000, 2000, 3000}));
        parts.push_back(reader.add(file, 8192, {64 * kKiB}));
      }
      bool complete = true;
      for (const TensorReader::Part part : parts) {
        const TakenPart taken = reader.take(part, [] {});
        require_no_memory(taken.error);
        complete &= !taken.error.has_value();
      }
      const bool failed = stop_failing();
      CHECK((failed || complete));
      return failed;
    });
  }
}

TEST_CASE("many files are opened by several threads") {
  const TemporaryFolder folder;
  std::vector<std::string> paths;
  for (int i = 0; i < 16; ++i) paths.push_back(folder.write(std::to_string(i), 10));
  with_each_allocation_failing([&](std::uint64_t number, Fails fails) {
    fail_allocation(number, fails);
    CHECK(FileTable(system_file_io(), paths, 16, 4).size() == 16);
    return stop_failing();
  });
}

TEST_SUITE_END();
