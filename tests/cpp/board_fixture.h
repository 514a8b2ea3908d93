// board_fixture: plans of small blocks, participants of their board, and processes that can be
// killed. For the suites board and board_file.
#pragma once

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "board/board.h"
#include "test_support.h"

namespace shardahead::testing {

inline constexpr std::uint64_t kNoLimit = std::numeric_limits<std::uint64_t>::max();
inline constexpr const char* kName = "shardahead-test";

inline std::shared_ptr<const Plan> plan_of(std::size_t blocks) {
  PlanOptions options;
  options.block_bytes = options.head_block_bytes = kMinBlockBytes;
  return std::make_shared<const Plan>(std::vector<PlannedFile>{{blocks * kMinBlockBytes, {}}},
                                      options);
}

inline std::shared_ptr<const Plan> plan_of_spans(std::size_t blocks, std::vector<ByteRange> spans) {
  PlanOptions options;
  options.block_bytes = options.head_block_bytes = kMinBlockBytes;
  return std::make_shared<const Plan>(
      std::vector<PlannedFile>{{blocks * kMinBlockBytes, std::move(spans)}}, options);
}

inline std::unique_ptr<BoardClaims> join(const TemporaryFolder& folder,
                                         const std::shared_ptr<const Plan>& plan) {
  BoardRefusal refusal;
  auto board = BoardClaims::join(folder.path(""), kName, plan,
                                 share_of(*plan, Partition::block, 0, 1), refusal);
  INFO(refusal.reason);
  REQUIRE(board);
  return board;
}

inline std::string refusal_of(const TemporaryFolder& folder,
                              const std::shared_ptr<const Plan>& plan) {
  BoardRefusal refusal;
  const auto board = BoardClaims::join(folder.path(""), kName, plan, {}, refusal);
  CHECK_FALSE(board);
  return refusal.reason;
}

// Runs `body` in a child, which tells through the pipe when it is ready and then waits to die.
template <typename Body>
pid_t child_that_waits(Body body) {
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::alarm(static_cast<unsigned>(kHangBound.count()));
    body();
    const char byte = 'r';
    if (::write(ready[1], &byte, 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  ::close(ready[1]);
  char byte = 0;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  ::close(ready[0]);
  return child;
}

inline void kill_and_wait(pid_t child) {
  ::kill(child, SIGKILL);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
}

}  // namespace shardahead::testing
