// watched_claims: claims that tell the ledger what is asked of them and what they answer; and the
// bugs that a canary plants below them. One thread.
#pragma once

#include <memory>

#include "simulation_ledger.h"

namespace shardahead::testing {

// What a canary has planted: each must be found.
enum class Bug {
  none,
  taken_twice,       // a block is given out while another is at work on it
  beyond_window,     // the limit of a claim is ignored
  dead_kept,         // the claims of the dead stay theirs
  done_unfetched,    // a block is marked done that no one has fetched
  never_settled,     // what became of a block is not said
  failure_hidden,    // a block that failed is marked done
  stopped_kept,      // the claims of the stopped stay theirs
  living_robbed,     // the living lose their claims
  rate_ignored,      // what was read is not counted where a rate limit asks for it
  others_forgotten,  // of a block only what its taker wants is fetched
  all_fetched,       // all of a block is fetched, whatever is wanted
  late_trusting,     // who comes late takes for its own what others had fetched
  // Of those who read by themselves:
  misplaced,      // bytes land elsewhere in memory
  error_lost,     // a read that failed counts as one that did not
  fetched_twice,  // what is read is read again
  beyond_ahead,   // the bound on what is read ahead is ignored
  never_met,      // no one waits until all have opened their files
  never_closed,   // a reader is left behind with its threads
};
inline constexpr std::uint32_t kBugs = 19;

const char* to_string(Bug bug) noexcept;

// Claims under observation, with a bug between them and the observer if the canary asks for one.
std::unique_ptr<Claims> watched(std::unique_ptr<Claims> claims, const Plan& plan, Ledger& ledger,
                                std::uint32_t rank, Bug bug);

}  // namespace shardahead::testing
