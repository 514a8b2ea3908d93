// table: rows of text under aligned heads. Pure layout; it knows nothing of what the columns mean.
// Any thread.
#pragma once

#include <string>
#include <vector>

namespace shardahead::bench {

struct Column {
  std::string head;
  bool right = false;  // aligned to the right
};

// Two blanks between columns, no blanks at the end of a line; a row with fewer cells than columns
// ends early. Counts bytes: cells are ASCII.
std::string layout(const std::vector<Column>& columns,
                   const std::vector<std::vector<std::string>>& rows);

}  // namespace shardahead::bench
