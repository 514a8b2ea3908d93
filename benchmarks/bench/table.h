// table: rows of text under aligned heads, and lines that fit a terminal. Pure layout; it knows
// nothing of what the columns mean. Any thread.
#pragma once

#include <string>
#include <vector>

namespace shardahead::bench {

struct Column {
  std::string head;
  bool right = false;  // aligned to the right
  int rank = 0;        // where not all fit, those with the highest are left out first; 0: never
};

// Two blanks between columns, no blanks at the end of a line; a row with fewer cells than columns
// ends early. Counts bytes: cells are ASCII.
std::string layout(const std::vector<Column>& columns,
                   const std::vector<std::vector<std::string>>& rows);

// How many columns of a terminal that takes.
std::size_t width_of(const std::vector<Column>& columns,
                     const std::vector<std::vector<std::string>>& rows);

// Leaves out whole columns, also of `rows`, until the rest fits into `width`; 0 is any width. What
// was left out, in the order of the columns.
std::vector<std::string> narrow(std::vector<Column>& columns,
                                std::vector<std::vector<std::string>>& rows, std::size_t width);

// Broken at blanks and behind commas into lines of at most `width`, of which those after the first
// are indented; 0 is any width. What has neither stays whole.
std::string wrapped(const std::string& line, std::size_t width);

}  // namespace shardahead::bench
