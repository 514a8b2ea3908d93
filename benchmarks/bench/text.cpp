#include "text.h"

#include <cmath>
#include <csignal>
#include <string_view>

#include "base/build.h"
#include "base/proc_text.h"
#include "request_counter.h"
#include "table.h"
#include "units.h"

namespace shardahead::bench {
namespace {

std::string or_dash(const std::optional<Spread>& spread, int decimals) {
  return spread ? format_fixed(spread->median, decimals) : "-";
}

std::string rate_of(double megabytes_per_second) { return rate_number(megabytes_per_second * 1e6); }

// A warm cell takes less than a millisecond.
std::string seconds_of(const std::optional<Spread>& spread) {
  return or_dash(spread, spread && spread->median < 0.1 ? 4 : 2);
}

// "auto: fadvise" where it came to something else than was asked for.
std::string strategy_of(const CellSummary& cell) {
  std::string name = to_string(cell.cell.setting.strategy);
  if (!cell.strategy_used.empty() && cell.strategy_used != name) name += ": " + cell.strategy_used;
  return name;
}

std::string range_of(const std::optional<Spread>& spread) {
  if (!spread) return "-";
  return rate_of(spread->least) + "-" + rate_of(spread->most);
}

// 99.98 % is not 100.0 %.
std::string percent_of(const std::optional<Spread>& share) {
  if (!share) return "-";
  return format_fixed(std::floor(share->median * 1000) / 10, 1) + " %";
}

std::string bytes_of(const std::optional<Spread>& spread) {
  return spread ? format_bytes(static_cast<std::uint64_t>(spread->median)) : "-";
}

std::string told(const std::optional<Spread>& spread, const CellSummary& cell) {
  if (cell.counted == 0) return "-";
  return spread ? format_fixed(spread->median, 0) : "not told";
}

std::string wire_bytes_told(const CellSummary& cell) {
  if (cell.counted == 0) return "-";
  return cell.wire_bytes ? bytes_of(cell.wire_bytes) : "not told";
}

std::vector<std::string> row_of(const CellSummary& cell, std::uint32_t repeats) {
  const Setting& setting = cell.cell.setting;
  return {strategy_of(cell),
          std::to_string(setting.threads),
          exact_bytes(setting.block_bytes),
          to_string(cell.cell.state),
          std::to_string(cell.counted) + "/" + std::to_string(repeats),
          cell.megabytes_per_second ? rate_of(cell.megabytes_per_second->median) : "-",
          range_of(cell.megabytes_per_second),
          seconds_of(cell.seconds),
          or_dash(cell.cpu_seconds_per_gib, 2),
          percent_of(cell.resident_after_share),
          told(cell.read_requests, cell),
          wire_bytes_told(cell),
          bytes_of(cell.lost_bytes),
          bytes_of(cell.step_bytes)};
}

std::string text_of(const MountUsed& used) {
  const Mount& mount = used.mount;
  if (mount.type.empty()) return "mount: unknown\n";
  const auto read_ahead_kib = used.read_ahead_kib();
  return "mount: " + mount.type + " from " +
         (mount.source.empty() ? "nothing" : printable(mount.source)) + " on " +
         printable(mount.mount_point) + ", read_ahead_kb " +
         (read_ahead_kib ? std::to_string(*read_ahead_kib) : "not told") +
         ", requests counted by: " + to_string(RequestCounter(mount).kind()) +
         "\n  options: " + printable(joined(mount.options, ",")) + "\n";
}

std::string head_of(const Bench& bench) {
  const Node& node = bench.node;
  const Workload& workload = bench.workload;
  std::string text = "shardahead-bench " + std::string(version()) + ", " + compiler() + "\n";
  text += "node: " + node.kernel + ", " + node.cpu_model + ", " + counted(node.cpus, "CPU");
  if (node.usable_cpus != node.cpus) {
    text += " (" + std::to_string(node.usable_cpus) + " for this process)";
  }
  text += ", " + format_bytes(node.memory_bytes) + " of memory\n";
  for (const MountUsed& used : bench.mounts) text += text_of(used);
  text += "measured: " + format_bytes(workload.measured_bytes) + " of " +
          format_bytes(workload.total_bytes) + " per cell, " +
          std::to_string(workload.files.size()) + " of " + counted(workload.total_files, "file") +
          "; " + counted(bench.options.repeats, "repeat") + ", interleaved\n";
  return text;
}

}  // namespace

std::string table_of(const std::vector<CellSummary>& cells, std::uint32_t repeats,
                     std::size_t width) {
  std::vector<Column> columns{
      {"strategy", false, 0}, {"threads", true, 0},  {"block", true, 0},      {"state", false, 0},
      {"counted", true, 2},   {"MB/s", true, 0},     {"least-most", true, 4}, {"s", true, 3},
      {"CPU s/GiB", true, 0}, {"resident", true, 1}, {"requests", true, 5},   {"wire", true, 6},
      {"lost", true, 7},      {"step", true, 8}};
  std::vector<std::vector<std::string>> rows;
  rows.reserve(cells.size());
  for (const CellSummary& cell : cells) rows.push_back(row_of(cell, repeats));
  const std::vector<std::string> left_out = narrow(columns, rows, width);
  std::string text = layout(columns, rows);
  if (!left_out.empty()) {
    text += "\n" + wrapped("-v shows also: " + joined(left_out, ", "), width) + "\n";
  }
  return text;
}

std::string cause_of(int signal) {
  switch (signal) {
    case SIGHUP: return "terminated by SIGHUP";
    case SIGTERM: return "terminated by SIGTERM";
    default: return "interrupted";
  }
}

std::string text_of(const Recommendation& recommendation, const std::string& words,
                    std::size_t width) {
  const auto line = [width](const std::string& text) { return wrapped(text, width) + "\n"; };
  if (recommendation.advice == Advice::none) {
    return line("no recommendation: " + recommendation.reason);
  }
  const Setting setting = recommendation.setting.value_or(default_setting());
  if (recommendation.advice == Advice::defaults) {
    return line("recommendation: the defaults (" + to_string(setting) +
                ") are as good: " + recommendation.reason);
  }
  return line("recommendation: " + to_string(setting) + " (" + recommendation.reason + ")") + "  " +
         as_environment(setting) + "\n  " + printable(as_command(setting, words)) + "\n";
}

std::string text_of(const Bench& bench, std::size_t width) {
  const std::string head = head_of(bench);
  std::string text;
  for (const std::string_view line : split(head, '\n')) {
    if (!line.empty()) text += wrapped(std::string(line), width) + "\n";
  }
  if (bench.signal != 0) text += "incomplete: " + cause_of(bench.signal) + "\n";
  text += '\n';
  text += table_of(bench.summaries, bench.options.repeats, bench.options.verbose ? 0 : width);
  text += '\n';
  for (const std::string& remark : remarks_of(bench.results)) text += wrapped(remark, width) + "\n";
  return text + text_of(bench.recommendation, words_of(bench.options), width);
}

}  // namespace shardahead::bench
