#include "table.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "base/proc_text.h"

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

// Where a line ends that begins with that text: the last place within `room`, else the next.
std::size_t break_in(std::string_view text, std::size_t begin, std::size_t room) {
  const auto is_break = [&](std::size_t at) {
    const bool digit = text[at] >= '0' && text[at] <= '9';  // of "1,250"
    return text[at] == ' ' || (text[at - 1] == ',' && !digit);
  };
  for (std::size_t at = room; at > begin; --at) {
    if (is_break(at)) return at;
  }
  for (std::size_t at = room + 1; at < text.size(); ++at) {
    if (is_break(at)) return at;
  }
  return text.size();
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

std::size_t width_of(const std::vector<Column>& columns,
                     const std::vector<std::vector<std::string>>& rows) {
  const std::string text = layout(columns, rows);
  std::size_t width = 0;
  for (const std::string_view line : split(text, '\n')) width = std::max(width, line.size());
  return width;
}

std::vector<std::string> narrow(std::vector<Column>& columns,
                                std::vector<std::vector<std::string>>& rows, std::size_t width) {
  std::vector<std::string> heads;
  for (const Column& column : columns) heads.push_back(column.head);
  while (width > 0 && width_of(columns, rows) > width) {
    const auto last =
        std::max_element(columns.begin(), columns.end(),
                         [](const Column& a, const Column& b) { return a.rank < b.rank; });
    if (last == columns.end() || last->rank == 0) break;
    const auto place = last - columns.begin();
    columns.erase(last);
    for (auto& row : rows) {
      if (place < std::ssize(row)) row.erase(row.begin() + place);
    }
  }
  std::erase_if(heads, [&](const std::string& head) {
    return std::any_of(columns.begin(), columns.end(),
                       [&](const Column& column) { return column.head == head; });
  });
  return heads;
}

std::string wrapped(const std::string& line, std::size_t width) {
  constexpr std::string_view kIndent = "    ";
  std::string text;
  std::string_view left = line;
  std::string_view indent;
  while (width > kIndent.size() && indent.size() + left.size() > width) {
    const std::size_t room = width - indent.size();
    const std::size_t begin = std::min(left.find_first_not_of(' '), left.size());
    const std::size_t end = break_in(left, begin, room);
    text += indent;
    text += left.substr(0, end);
    while (text.ends_with(' ')) text.pop_back();
    left.remove_prefix(std::min(left.find_first_not_of(' ', end), left.size()));
    if (left.empty()) return text;
    text += '\n';
    indent = kIndent;
  }
  text += indent;
  text += left;
  return text;
}

}  // namespace shardahead::bench
