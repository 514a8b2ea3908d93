// json_document: a finished bench for programs: one JSON object with everything that text_of says
// and each repeat by itself. Makes a string, prints nothing. Any thread.
#pragma once

#include <string>

#include "bench.h"

namespace shardahead::bench {

// Without a line break at the end. A byte 0xNN of a path that is not UTF-8 is "\udcNN".
std::string json_of(const Bench& bench);

}  // namespace shardahead::bench
