// folder_names: what lies in a folder. Instead of std::filesystem::directory_iterator, which ends
// the process where there is no memory. No state; any thread.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace shardahead {

// The names of the first `most` entries, in no order; none where the folder cannot be read.
std::vector<std::string> folder_names(const std::string& folder, std::size_t most);

}  // namespace shardahead
