#include "simulation.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <deque>

#include "simulated_rank.h"

namespace shardahead::testing {
namespace {

// No healthy load takes that long: each pause, stall and late start is of a minute at most.
constexpr auto kEnd = Runtime::Time(std::chrono::hours(1));

// What lies where the board should be, before the first rank comes. A board of the living is kept
// so by a participant that does nothing.
std::unique_ptr<BoardClaims> prepare_board(SimulatedNode& node, Random& random) {
  const BoardState state = node.scenario.board;
  if (state == BoardState::absent) return nullptr;
  std::vector<PlannedFile> files;
  for (const std::uint64_t size_bytes : node.scenario.sizes_bytes)
    files.push_back({size_bytes, {}});
  const auto plan = std::make_shared<const Plan>(std::move(files), node.scenario.plan);
  BoardRefusal refusal;
  std::unique_ptr<BoardClaims> keeper;
  if (state != BoardState::left_behind) {
    keeper = BoardClaims::join(node.folder.path(""), SimulatedNode::kBoardName, plan, {}, refusal);
  }
  const std::string path = node.folder.path(SimulatedNode::kBoardName);
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  const off_t size = keeper ? ::lseek(descriptor, 0, SEEK_END) : 12345;
  std::vector<std::uint64_t> bytes(static_cast<std::size_t>(size) / sizeof(std::uint64_t));
  for (std::uint64_t& each : bytes) each = random.next();
  ssize_t written = 0;
  if (state == BoardState::other_version) {
    written = ::pwrite(descriptor, bytes.data(), sizeof(std::uint32_t), sizeof(std::uint64_t));
  } else if (state == BoardState::other_size) {
    written = ::ftruncate(descriptor, size + 4096);
  } else {
    written = ::pwrite(descriptor, bytes.data(), bytes.size() * sizeof(std::uint64_t), 0);
  }
  if (written < 0) node.ledger.broken(0, "the board of the simulation cannot be written");
  ::close(descriptor);
  return keeper;
}

// Whether nothing makes a reader open a file again.
bool opens_once(const Scenario& scenario) {
  const auto reopens = [](const Fault& fault) {
    return fault.operation == Operation::open || fault.operation == Operation::map ||
           fault.operation == Operation::copy_mapped;
  };
  return std::ranges::all_of(scenario.ranks, [&](const RankScenario& rank) {
    return rank.most_threads >= kAllThreads && std::ranges::none_of(rank.faults, reopens);
  });
}

}  // namespace

SimulationResult simulate(const SimulationOptions& options) {
  const Scenario scenario(options.seed);
  std::deque<SimulatedRank> ranks;
  SimulatedNode node(scenario, options, [&](std::uint32_t rank) {
    if (rank < ranks.size()) ranks[rank].step();
  });
  Random random(options.seed + 2);
  const auto keeper = prepare_board(node, random);
  for (const FileRange& warm : scenario.warm) node.cache.load(warm.file, warm.range, {});
  for (const FileRange& lie : scenario.lies) node.ledger.exempt(lie.file, lie.range);
  // What is read past the page cache does not come there.
  if (scenario.blind || scenario.node.mount == SimulatedMount::uncached) node.ledger.exempt_all();
  if (!opens_once(scenario)) node.shared_reading.exempt();
  for (std::uint32_t rank = 0; rank < scenario.ranks.size(); ++rank) {
    SimulatedRank& each = ranks.emplace_back(node, rank);
    node.threads.start(rank, [&each] { each.live(); });
  }
  if (!node.threads.run(kEnd) && node.ledger.violations().empty()) {
    for (std::uint32_t rank = 0; rank < ranks.size(); ++rank) {
      if (!ranks[rank].ended()) node.ledger.broken(rank, "never ends");
    }
    if (node.ledger.violations().empty()) node.ledger.broken(0, "a thread never ends");
  }
  if (node.ledger.violations().empty()) {
    for (SimulatedRank& rank : ranks) rank.check_left();
    if (!scenario.reads()) node.ledger.check_fetched(scenario.warm);
    node.shared_reading.check();
  }
  const auto ended = node.threads.now();
  for (SimulatedRank& rank : ranks) rank.bury();
  node.ledger.close();
  SimulationResult result = node.result;
  result.violations = node.ledger.violations();
  if (!node.threads.bury()) result.violations.emplace_back("a thread cannot be ended");
  result.trace_hash = node.trace.hash();
  result.events = node.trace.events();
  result.trace = node.trace.text();
  result.virtual_seconds = std::chrono::duration<double>(ended.time_since_epoch()).count();
  result.longest_for_stopped_seconds =
      std::chrono::duration<double>(node.ledger.most_waited()).count();
  result.ranks = static_cast<std::uint32_t>(scenario.ranks.size());
  result.all_met = node.shared_reading.all_met();
  result.read_bytes = node.cache.read_bytes();
  result.evicted_bytes = node.cache.evicted_bytes();
  return result;
}

}  // namespace shardahead::testing
