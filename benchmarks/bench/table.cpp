#include "table.h"

#include <algorithm>

namespace shardahead::bench {
namespace {

std::string line_of(const std::vector<Column>& columns, const std::vector<std::size_t>& widths,
                    const std::vector<std::string>& cells) {
  std::string line;
  for (std::size_t i = 0; i < std::min(columns.size(), cells.size()); ++i) {
    const std::string gap(widths[i] - cells[i].size(), ' ');
    if (i > 0) line += "  ";
    line += columns[i].right ? gap + cells[i] : cells[i] + gap;
  }
  return line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
}

}  // namespace

std::string layout(const std::vector<Column>& columns,
                   const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  std::vector<std::string> heads;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    std::size_t width = columns[i].head.size();
    for (const auto& row : rows) {
      if (i < row.size()) width = std::max(width, row[i].size());
    }
    widths.push_back(width);
    heads.push_back(columns[i].head);
  }
  std::string text = line_of(columns, widths, heads);
  for (const auto& row : rows) text += line_of(columns, widths, row);
  return text;
}

}  // namespace shardahead::bench
