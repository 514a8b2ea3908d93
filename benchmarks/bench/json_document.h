// json_document: a finished bench for programs: one JSON object with everything that text_of says
// and each repeat by itself. Makes a string, prints nothing. Any thread.
#pragma once

#include <string>

#include "bench.h"

namespace shardahead::bench {

// Without a line break at the end. Bytes of a path that are not UTF-8 are replaced.
std::string json_of(const Bench& bench);

}  // namespace shardahead::bench
