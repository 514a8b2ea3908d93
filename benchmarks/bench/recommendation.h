// recommendation: which setting of those measured cold to use on this mount. Pure: it sees the
// summaries and nothing else. Any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "options.h"
#include "summary.h"

namespace shardahead::bench {

// Medians that are this near to the best are as good: the same cell varies by as much.
inline constexpr double kSameSpeedShare = 0.03;
// What does not stay in the page cache helps no one.
inline constexpr double kMinResidentShare = 0.9;

enum class Advice { setting, defaults, none };

const char* to_string(Advice advice) noexcept;

struct Recommendation {
  Advice advice = Advice::none;
  std::optional<Setting> setting;  // what to use; nothing with Advice::none
  std::string reason;
};

// Of the cold cells within kSameSpeedShare of the best median: the least processor time per GiB (as
// printed, to 0.01 s), then the fewest threads. The defaults, where they were measured and nothing
// was better than they by more than the same cell varies.
Recommendation recommend(const std::vector<CellSummary>& cells);

// "SHARDAHEAD_STRATEGY=fadvise SHARDAHEAD_THREADS=4 SHARDAHEAD_BLOCK_SIZE=16MiB"
std::string as_environment(const Setting& setting);
// "'/models/my model' /b", as a shell takes them.
std::string as_words(const std::vector<std::string>& paths);
// "shardahead warm --strategy fadvise --threads 4 --block-size 16MiB /models/m"; `words` are what
// names the files.
std::string as_command(const Setting& setting, const std::string& words);
// As was asked for, else the paths themselves.
std::string words_of(const Options& options);

}  // namespace shardahead::bench
