// wants_ledger: what the ranks of a simulated node want, to the byte, and the rules of what is
// fetched for that: all that any of them has said to want, nothing else but what grains, merging
// and the kernel's own windows explain. Part of the ledger of a simulation. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "board/claims.h"
#include "simulated_node.h"

namespace shardahead::testing {

class WantsLedger {
 public:
  using ByFile = std::vector<std::vector<ByteRange>>;  // sorted and merged

  // Before it takes anything. On an empty board `anew`.
  void join(std::shared_ptr<const Plan> plan, bool on_board, bool anew);
  // Whoever took a block is told to fetch these; what is wrong with them, or nothing.
  [[nodiscard]] std::optional<std::string> wrong_with(const Plan& plan, const Claim& claim,
                                                      const std::vector<ByteRange>& ranges,
                                                      bool on_board) const;
  // Wanted bytes from one position of the plan to another, by all on the board, or by this plan.
  [[nodiscard]] std::uint64_t between(const Plan& plan, bool on_board, std::uint64_t from,
                                      std::uint64_t to) const;
  // Of what came from the storage, the first that no one ever wanted, if any; `known` are ranges
  // that were there from the start.
  [[nodiscard]] std::optional<FileRange> fetched_for_no_one(
      const PageCache& cache, const std::vector<FileRange>& known) const;

 private:
  std::vector<std::shared_ptr<const Plan>> on_board_;  // since it was empty; also of the dead
  std::vector<std::shared_ptr<const Plan>> ever_;
};

}  // namespace shardahead::testing
