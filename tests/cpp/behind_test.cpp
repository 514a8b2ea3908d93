// engine: what becomes of the bytes behind the consumers, with real files, mappings and boards; the
// kernel is asked what is still resident.
#include "engine/behind.h"

#include <doctest/doctest.h>

#include <cstring>

#include "board_fixture.h"
#include "engine_fixture.h"
#include "node/residency.h"

using namespace shardahead;
using namespace shardahead::testing;

TEST_SUITE_BEGIN("behind");

namespace {

constexpr std::uint64_t kFileBytes = 32 * kMiB;
constexpr std::uint64_t kTensorBytes = 4 * kMiB;

// Two files on the disk, and consumers that load them in memory for a quarter of them.
struct ShortMemory {
  ShortMemory() {
    for (const char* name : {"a", "b"}) paths.push_back(folder.write(name, kFileBytes));
    files = std::make_shared<FileTable>(system_file_io(), paths, 8);
    PlanOptions options;
    options.block_bytes = options.head_block_bytes = 1 * kMiB;
    plan = std::make_shared<const Plan>(
        std::vector<PlannedFile>{{kFileBytes, {}}, {kFileBytes, {}}}, options);
    evict_all();  // which also writes them back: what is dirty is not dropped
  }

  void evict_all() const {
    for (std::size_t file = 0; file < files->size(); ++file) {
      REQUIRE(evict(system_file_io(), *files->acquire(file), {0, kFileBytes}) == 0);
    }
  }

  [[nodiscard]] bool can_evict() const {
    if (residency(system_file_io(), *files->acquire(0)).resident_bytes == 0) return true;
    MESSAGE("skipped: files of the temporary folder cannot be evicted, or residency is unknown");
    return false;
  }

  [[nodiscard]] std::unique_ptr<Engine> start(
      std::optional<std::uint64_t> budget_bytes = kFileBytes / 2) const {
    return std::make_unique<Engine>(system_file_io(), plan, files, join(folder, plan),
                                    EngineOptions{.threads = 2,
                                                  .window_bytes = std::nullopt,
                                                  .consumer = true,
                                                  .memory_budget = [=] { return budget_bytes; }});
  }

  [[nodiscard]] std::uint64_t resident_bytes(std::size_t file, ByteRange range) const {
    const auto found = residency(system_file_io(), *files->acquire(file), range).resident_bytes;
    REQUIRE(found);
    return *found;
  }

  TemporaryFolder folder;
  std::vector<std::string> paths;
  std::shared_ptr<FileTable> files;
  std::shared_ptr<const Plan> plan;
};

// Reads the tensors of a range of the checkpoint one after the other, as an iterator does.
class Consumer {
 public:
  Consumer(Engine& engine, const Plan& plan) : engine_(engine), plan_(plan) {}

  std::unique_ptr<HeldBytes> next() {
    const FileRange at = plan_.files_under({position_, kTensorBytes}).front();
    if (!mapped_ || at.range.offset == 0) mapped_ = engine_.map(at.file);
    engine_.consumed(0, position_ + kTensorBytes);
    REQUIRE_FALSE(engine_.make_resident(at.file, at.range));
    auto held = engine_.hold(at.file, mapped_, at.range);
    touch(*held);
    return held;
  }

  void pass() {
    position_ += kTensorBytes;
    engine_.consumed(position_, position_);
  }

  void read_until(std::uint64_t position) {
    while (position_ < position) {
      next().reset();
      pass();
    }
  }

  static std::uint64_t touch(const HeldBytes& held) {
    std::uint64_t sum = 0;
    for (std::uint64_t at = 0; at < held.size_bytes(); at += 4096) {
      sum += static_cast<std::uint64_t>(held.memory()[at]);
    }
    return sum;
  }

 private:
  Engine& engine_;
  const Plan& plan_;
  std::shared_ptr<MappedFile> mapped_;
  std::uint64_t position_ = 0;
};

}  // namespace

TEST_CASE("what lies behind the consumer by more than it keeps is dropped, within a file too") {
  const ShortMemory memory;
  if (!memory.can_evict()) return;
  const auto engine = memory.start();
  Consumer consumer(*engine, *memory.plan);
  consumer.read_until(kFileBytes - 4 * kMiB);
  // 16 MiB are the least that is dropped at once, 4 MiB are kept.
  CHECK(memory.resident_bytes(0, {0, 16 * kMiB}) == 0);
  CHECK(memory.resident_bytes(0, {24 * kMiB, 4 * kMiB}) == 4 * kMiB);
  consumer.read_until(2 * kFileBytes);
  CHECK(engine->report().dropped_bytes >= 48 * kMiB);
  CHECK(engine->report().refetched_bytes == 0);
  CHECK(engine->report().window_bytes == 4 * kMiB);
}

TEST_CASE("where all fits nothing is dropped") {
  const ShortMemory memory;
  if (!memory.can_evict()) return;
  for (const auto budget : {std::optional<std::uint64_t>{}, {2 * kFileBytes}}) {
    memory.evict_all();
    const auto engine = memory.start(budget);
    Consumer(*engine, *memory.plan).read_until(2 * kFileBytes);
    CHECK(engine->report().dropped_bytes == 0);
    CHECK(memory.resident_bytes(0, {0, kFileBytes}) == kFileBytes);
    CHECK(memory.resident_bytes(1, {0, kFileBytes}) == kFileBytes);
  }
}

TEST_CASE("what is held stays as it was written, and goes when it is let go") {
  const ShortMemory memory;
  if (!memory.can_evict()) return;
  const auto engine = memory.start();
  Consumer consumer(*engine, *memory.plan);
  consumer.read_until(kTensorBytes);
  auto held = consumer.next();
  const std::uint64_t before = Consumer::touch(*held);
  std::memset(held->memory(), 7, 4096);  // into the first page, in private
  consumer.pass();
  consumer.read_until(kFileBytes);
  CHECK(held->memory()[0] == std::byte{7});
  CHECK(held->memory()[4095] == std::byte{7});
  CHECK(Consumer::touch(*held) - before == 7);  // the file is all zeros but for what was written
  CHECK(memory.resident_bytes(0, {kTensorBytes, kTensorBytes}) >= kTensorBytes - 4096);
  CHECK(memory.resident_bytes(0, {0, kTensorBytes}) == 0);
  held.reset();
  consumer.next().reset();
  consumer.pass();
  CHECK(memory.resident_bytes(0, {kTensorBytes, kTensorBytes}) == 0);
}

TEST_CASE("nothing is dropped before the slowest consumer has passed it") {
  const ShortMemory memory;
  if (!memory.can_evict()) return;
  const auto fast = memory.start();
  const auto slow = memory.start();
  Consumer at_the_front(*fast, *memory.plan);
  Consumer at_the_back(*slow, *memory.plan);
  at_the_front.read_until(kTensorBytes);
  at_the_back.read_until(kTensorBytes);
  for (std::uint64_t at = 2 * kTensorBytes; at <= kFileBytes; at += kTensorBytes) {
    CAPTURE(at);
    const auto started = std::chrono::steady_clock::now();
    at_the_front.read_until(at);
    if (std::chrono::steady_clock::now() - started > ConsumerWatch::kPatience / 2) {
      MESSAGE("skipped: so slow a machine does not wait for the slower one");
      return;
    }
    CHECK(memory.resident_bytes(0, {at - kTensorBytes, kTensorBytes}) == kTensorBytes);
    at_the_back.read_until(at);
  }
  CHECK(memory.resident_bytes(0, {0, 16 * kMiB}) == 0);
  CHECK(fast->report().refetched_bytes + slow->report().refetched_bytes == 0);
}

TEST_CASE("a consumer that never moves, and one that ends, are not waited for") {
  const ShortMemory memory;
  if (!memory.can_evict()) return;
  const auto idle = memory.start();
  const auto ended = memory.start();
  const auto engine = memory.start();
  CHECK_FALSE(ended->end_consumer());
  Consumer consumer(*engine, *memory.plan);
  consumer.read_until(2 * kFileBytes);  // waits for the idle one once, then goes on
  CHECK(memory.resident_bytes(0, {0, kFileBytes}) == 0);
  CHECK_FALSE(engine->end_consumer());  // the idle one is still there
  CHECK(idle->end_consumer());
}

TEST_CASE("what was evicted before it was consumed is fetched again, counted, and said") {
  const ShortMemory memory;
  if (!memory.can_evict()) return;
  const auto engine = memory.start(2 * kFileBytes);
  REQUIRE(engine->wait(kHangBound));
  memory.evict_all();
  Consumer(*engine, *memory.plan).read_until(kFileBytes);
  const Report report = engine->report();
  // The kernel reads some of it ahead of the consumer.
  CHECK(report.refetched_bytes >= kTensorBytes);
  CHECK(report.refetched_bytes <= kFileBytes);
  CHECK(report.window_source == "memory");
}

TEST_CASE("a part of a mapping that is not in the file is refused") {
  const ShortMemory memory;
  if (!memory.can_evict()) return;
  const auto engine = memory.start();
  const auto mapped = engine->map(0);
  CHECK(mapped == engine->map(0));
  CHECK_THROWS_WITH_AS(engine->hold(0, mapped, {kFileBytes, 1}),
                       "bytes 33554432 to 33554433 are not in a file of 33554432 bytes",
                       std::invalid_argument);
  CHECK_THROWS_AS(engine->hold(0, mapped, {1, ~std::uint64_t{0}}), std::invalid_argument);
  CHECK(engine->hold(0, mapped, {kFileBytes, 0})->size_bytes() == 0);
}

namespace {

// Two files in a simulated kernel, all of them resident, and no mapping.
struct PassedFixture {
  PassedFixture() : checkpoint({16 * kMiB, 16 * kMiB}) {
    checkpoint.open();
    for (std::size_t file = 0; file < 2; ++file) {
      checkpoint.kernel.make_resident(SimulatedCheckpoint::path(file), {0, 16 * kMiB});
    }
    behind.emplace(checkpoint.io, system_runtime(), *checkpoint.plan, *checkpoint.files);
  }

  std::uint64_t drop(std::uint64_t released_bytes, std::uint64_t keep_bytes) {
    claims.slowest = ConsumerPosition{.released_bytes = released_bytes};
    behind->give_up_released(released_bytes);
    return behind->drop(claims, keep_bytes, {});
  }

  [[nodiscard]] std::uint64_t resident_bytes(std::size_t file) const {
    return checkpoint.kernel.resident_bytes(SimulatedCheckpoint::path(file));
  }

  SimulatedCheckpoint checkpoint;
  ToldClaims claims;
  std::optional<Behind> behind;
};

}  // namespace

TEST_CASE("what is released is dropped once, across files, but for what is kept") {
  PassedFixture fixture;
  CHECK(fixture.drop(4 * kMiB, 4 * kMiB) == 0);
  CHECK(fixture.drop(22 * kMiB, 4 * kMiB) == 18 * kMiB);
  CHECK(fixture.resident_bytes(0) == 0);
  CHECK(fixture.resident_bytes(1) == 14 * kMiB);
  CHECK(fixture.drop(22 * kMiB, 4 * kMiB) == 0);
}

TEST_CASE("where it is not known what others have released nothing is dropped") {
  PassedFixture fixture;
  fixture.claims.slowest.reset();
  CHECK(fixture.behind->drop(fixture.claims, 0, {}) == 0);
  CHECK(fixture.resident_bytes(0) == 16 * kMiB);
}

TEST_CASE("what was let go late is dropped then, where all others have released it") {
  PassedFixture fixture;
  Consumption& consumption = *fixture.behind->consumption();
  for (const std::uint64_t begin : {0 * kMiB, 10 * kMiB}) consumption.hand_out({begin, 2 * kMiB});
  consumption.pass(20 * kMiB, 20 * kMiB, 0);
  fixture.claims.dropped_bytes = 8 * kMiB;  // by another
  consumption.release({0, 2 * kMiB});
  consumption.release({10 * kMiB, 2 * kMiB});
  CHECK(fixture.drop(8 * kMiB, 0) == 2 * kMiB);  // the second is not released by all
  CHECK(fixture.resident_bytes(0) == 14 * kMiB);
}

TEST_CASE("a file that is gone is none to drop") {
  PassedFixture fixture;
  FileTable& files = *fixture.checkpoint.files;
  files.renew(0, *files.acquire(0));  // has to be opened again
  fixture.checkpoint.io.add({.operation = Operation::open, .path_suffix = "0.shard"});
  CHECK(fixture.drop(32 * kMiB, 0) == 16 * kMiB);
  CHECK(fixture.resident_bytes(1) == 0);
}

TEST_SUITE_END();
