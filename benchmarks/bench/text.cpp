#include "text.h"

#include <cmath>

#include "base/build.h"
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

std::string table_of(const std::vector<CellSummary>& cells, std::uint32_t repeats) {
  const std::vector<Column> columns{{"strategy", false},  {"threads", true},  {"block", true},
                                    {"state", false},     {"counted", true},  {"MB/s", true},
                                    {"least-most", true}, {"s", true},        {"CPU s/GiB", true},
                                    {"resident", true},   {"requests", true}, {"wire", true},
                                    {"lost", true},       {"step", true}};
  std::vector<std::vector<std::string>> rows;
  rows.reserve(cells.size());
  for (const CellSummary& cell : cells) rows.push_back(row_of(cell, repeats));
  return layout(columns, rows);
}

std::string text_of(const Recommendation& recommendation, const std::string& words) {
  if (recommendation.advice == Advice::none) {
    return "no recommendation: " + recommendation.reason + "\n";
  }
  const Setting setting = recommendation.setting.value_or(default_setting());
  if (recommendation.advice == Advice::defaults) {
    return "recommendation: the defaults (" + to_string(setting) +
           ") are as good: " + recommendation.reason + "\n";
  }
  return "recommendation: " + to_string(setting) + " (" + recommendation.reason + ")\n  " +
         as_environment(setting) + "\n  " + printable(as_command(setting, words)) + "\n";
}

std::string text_of(const Bench& bench) {
  std::string text = head_of(bench);
  if (bench.signal != 0) text += "INCOMPLETE: interrupted before all was measured\n";
  text += '\n';
  text += table_of(bench.summaries, bench.options.repeats);
  text += '\n';
  for (const std::string& remark : remarks_of(bench.results)) text += remark + "\n";
  return text + text_of(bench.recommendation, words_of(bench.options));
}

}  // namespace shardahead::bench
