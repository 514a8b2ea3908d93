// simulated_rank: one process of a simulated node: it opens the files, joins the board, starts an
// engine and consumes tensors, as an iterator does. Its threads are virtual. One real thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "board/board.h"
#include "engine/engine.h"
#include "reading_ledger.h"
#include "simulation.h"
#include "simulation_ledger.h"
#include "simulation_scenario.h"
#include "test_support.h"

namespace shardahead::testing {

// What all ranks of a node share.
struct SimulatedNode {
  SimulatedNode(const Scenario& the_scenario, const SimulationOptions& the_options,
                std::function<void(std::uint32_t)> at_step);

  static constexpr const char* kBoardName = "board";

  const Scenario& scenario;
  const SimulationOptions& options;
  TemporaryFolder folder;
  Trace trace;
  VirtualThreads threads;
  PageCache cache;
  Ledger ledger;
  SharedReading shared_reading;
  SimulationResult result;
};

class SimulatedReader;

class SimulatedRank {
 public:
  SimulatedRank(SimulatedNode& node, std::uint32_t index);
  ~SimulatedRank();
  SimulatedRank(const SimulatedRank&) = delete;
  SimulatedRank& operator=(const SimulatedRank&) = delete;

  // The body of its main thread.
  void live();
  // One of its threads gives way: the moment for what is to happen in a certain step.
  void step();
  void cancel();
  // All is over: what the dead have mapped is made whole, for they will look at it once more.
  void bury();
  [[nodiscard]] bool ended() const noexcept { return ended_ || dead_; }
  // All of its threads are over: nothing may be left open.
  void check_left();

 private:
  struct Tensor {
    std::uint32_t file = 0;
    ByteRange range;
  };

  void set_up();
  void prefetch();
  void read();
  void end();
  std::unique_ptr<Claims> make_claims();
  void consume();
  void consume(const Tensor& tensor);
  void look_up();  // between two waits of the consumer
  void check_wait(double waited_seconds, const Tensor& tensor, const std::optional<IoError>& error);
  void check_report();
  void kill();
  void stop();
  void drop_locks();
  void later(std::chrono::nanoseconds wait, const std::function<void()>& what);
  void unmap();
  [[nodiscard]] std::vector<Tensor> tensors(Random& random) const;

  SimulatedNode& node_;
  const std::uint32_t index_;
  const RankScenario& scenario_;
  Random random_;
  RankRuntime runtime_;
  RankFileIo rank_io_;
  FaultyFileIo io_;
  std::shared_ptr<FileTable> files_;
  std::shared_ptr<const Plan> plan_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<SimulatedReader> reader_;
  int board_descriptor_ = -1;
  int dead_board_ = -1;  // the same file, without its locks
  off_t dead_board_bytes_ = 0;
  std::vector<Tensor> mapped_;
  std::uint64_t steps_ = 0;
  std::uint64_t looks_ = 0;
  std::uint64_t tensors_begun_ = 0;
  BlockRange waits_for_;  // its consumer
  Runtime::Time looked_;
  std::chrono::nanoseconds stopped_for_{0};
  bool cancelled_ = false;
  bool dead_ = false;
  bool ended_ = false;
};

}  // namespace shardahead::testing
