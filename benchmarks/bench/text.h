// text: a finished bench for people: what was measured where, the table, remarks, recommendation.
// Makes strings, prints nothing. Any thread.
#pragma once

#include <string>

#include "bench.h"

namespace shardahead::bench {

// In lines of at most `width`, but for what is there to be copied; 0 is any width.
std::string text_of(const Bench& bench, std::size_t width = 0);

// One row of the table per cell; "-" where there is no figure. Where the table is wider than
// `width` without columns that matter less, which a line below it names.
std::string table_of(const std::vector<CellSummary>& cells, std::uint32_t repeats,
                     std::size_t width = 0);

// A signal that ended a bench, as every command says it.
std::string cause_of(int signal);

std::string text_of(const Recommendation& recommendation, const std::string& words,
                    std::size_t width = 0);

}  // namespace shardahead::bench
