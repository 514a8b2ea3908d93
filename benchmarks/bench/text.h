// text: a finished bench for people: what was measured where, the table, remarks, recommendation.
// Makes strings, prints nothing. Any thread.
#pragma once

#include <string>

#include "bench.h"

namespace shardahead::bench {

std::string text_of(const Bench& bench);

// One row of the table per cell; "-" where there is no figure.
std::string table_of(const std::vector<CellSummary>& cells, std::uint32_t repeats);

std::string text_of(const Recommendation& recommendation, const std::string& words);

}  // namespace shardahead::bench
