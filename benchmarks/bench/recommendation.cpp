#include "recommendation.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "units.h"

namespace shardahead::bench {
namespace {

double speed(const CellSummary& cell) { return cell.megabytes_per_second->median; }

double printed_cpu(const CellSummary& cell) {
  return std::round(cell.cpu_seconds_per_gib->median * 100) / 100;
}

bool is_measured_cold(const CellSummary& cell) {
  return cell.cell.state == CacheState::cold && cell.counted > 0 && cell.megabytes_per_second &&
         cell.cpu_seconds_per_gib;
}

bool stayed(const CellSummary& cell) {
  return cell.resident_after_share && cell.resident_after_share->median >= kMinResidentShare;
}

// Within 3 % of the best, or within what the best itself varies.
bool is_as_fast(const CellSummary& cell, const CellSummary& best) {
  return speed(cell) >=
         std::min(speed(best) * (1 - kSameSpeedShare), best.megabytes_per_second->least);
}

bool costs_no_more(const CellSummary& cell, const CellSummary& chosen) {
  return printed_cpu(cell) <= printed_cpu(chosen) ||
         cell.cpu_seconds_per_gib->median <= chosen.cpu_seconds_per_gib->most;
}

std::string figures(const CellSummary& cell) {
  return format_rate(speed(cell) * 1e6) + ", " + format_fixed(cell.cpu_seconds_per_gib->median, 2) +
         " s of processor time per GiB";
}

const CellSummary& choose(const std::vector<const CellSummary*>& cells, const CellSummary& best) {
  const CellSummary* chosen = &best;
  const auto rank = [](const CellSummary& cell) {
    return std::tuple(printed_cpu(cell), cell.cell.setting.threads);
  };
  for (const CellSummary* cell : cells) {
    if (speed(*cell) < speed(best) * (1 - kSameSpeedShare)) continue;
    if (rank(*cell) < rank(*chosen)) chosen = cell;
  }
  return *chosen;
}

Recommendation none(const std::vector<CellSummary>& cells, bool any_measured_cold) {
  const bool asked = std::any_of(cells.begin(), cells.end(), [](const CellSummary& cell) {
    return cell.cell.state == CacheState::cold;
  });
  if (!asked) return {Advice::none, std::nullopt, "no cell was to be measured cold"};
  if (!any_measured_cold) return {Advice::none, std::nullopt, "no cell could be measured cold"};
  return {Advice::none, std::nullopt, "what was read did not stay in the page cache"};
}

}  // namespace

const char* to_string(Advice advice) noexcept {
  switch (advice) {
    case Advice::setting: return "setting";
    case Advice::defaults: return "defaults";
    case Advice::none: break;
  }
  return "none";
}

Recommendation recommend(const std::vector<CellSummary>& cells) {
  std::vector<const CellSummary*> usable;
  bool any_measured_cold = false;
  for (const CellSummary& cell : cells) {
    if (!is_measured_cold(cell)) continue;
    any_measured_cold = true;
    if (stayed(cell)) usable.push_back(&cell);
  }
  if (usable.empty()) return none(cells, any_measured_cold);
  const CellSummary& best = **std::max_element(
      usable.begin(), usable.end(),
      [](const CellSummary* a, const CellSummary* b) { return speed(*a) < speed(*b); });
  const CellSummary& chosen = choose(usable, best);
  const auto is_default = [](const CellSummary* cell) {
    return cell->cell.setting == default_setting();
  };
  const auto defaults = std::find_if(usable.begin(), usable.end(), is_default);
  if (defaults != usable.end() && is_as_fast(**defaults, best) &&
      costs_no_more(**defaults, chosen)) {
    return {Advice::defaults, default_setting(), figures(**defaults) + ", nothing was better"};
  }
  return {Advice::setting, chosen.cell.setting, figures(chosen)};
}

std::string as_environment(const Setting& setting) {
  return std::string("SHARDAHEAD_STRATEGY=") + to_string(setting.strategy) +
         " SHARDAHEAD_THREADS=" + std::to_string(setting.threads) +
         " SHARDAHEAD_BLOCK_SIZE=" + exact_bytes(setting.block_bytes);
}

std::string as_words(const std::vector<std::string>& paths) {
  std::vector<std::string> words;
  words.reserve(paths.size());
  for (const std::string& path : paths) words.push_back(shell_quoted(path));
  return joined(words, " ");
}

std::string as_command(const Setting& setting, const std::string& words) {
  return std::string("shardahead warm --strategy ") + to_string(setting.strategy) + " --threads " +
         std::to_string(setting.threads) + " --block-size " + exact_bytes(setting.block_bytes) +
         ' ' + words;
}

std::string words_of(const Options& options) {
  return options.shown_as.empty() ? as_words(options.paths) : options.shown_as;
}

}  // namespace shardahead::bench
