#include "workload.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "node/file_table.h"
#include "options.h"
#include "units.h"

namespace shardahead::bench {
namespace {

namespace fs = std::filesystem;

bool is_digit(char letter) { return letter >= '0' && letter <= '9'; }

// Cuts the run of digits, or of anything else, off the front of the text.
std::string_view cut_run(std::string_view& text) {
  std::size_t end = 1;
  while (end < text.size() && is_digit(text[end]) == is_digit(text[0])) ++end;
  const std::string_view run = text.substr(0, end);
  text.remove_prefix(end);
  return run;
}

std::string_view without_leading_zeros(std::string_view digits) {
  return digits.substr(std::min(digits.find_first_not_of('0'), digits.size()));
}

int compare_runs(std::string_view a, std::string_view b) {
  if (!is_digit(a[0]) || !is_digit(b[0])) return a.compare(b);
  a = without_leading_zeros(a);
  b = without_leading_zeros(b);
  // Without leading zeros a longer number is a larger one.
  if (a.size() != b.size()) return a.size() < b.size() ? -1 : 1;
  return a.compare(b);
}

[[noreturn]] void fail(const std::string& path, const char* operation,
                       const std::error_code& code) {
  throw IoException({code.value(), operation, path, 0, ""});
}

std::vector<std::string> regular_files(const std::string& folder) {
  std::error_code error;
  std::vector<std::string> names;
  const auto end = fs::directory_iterator();
  for (fs::directory_iterator entry(folder, error); !error && entry != end;
       entry.increment(error)) {
    // A link that leads nowhere counts: opening it says what is wrong.
    std::error_code unknown;
    const fs::file_type type = entry->status(unknown).type();
    if (type != fs::file_type::regular && type != fs::file_type::not_found) continue;
    names.push_back(entry->path().filename().string());
  }
  if (error) fail(folder, "opendir", error);
  return names;
}

}  // namespace

bool naturally_before(std::string_view a, std::string_view b) {
  const std::string_view whole_a = a;
  const std::string_view whole_b = b;
  while (!a.empty() && !b.empty()) {
    if (const int order = compare_runs(cut_run(a), cut_run(b)); order != 0) return order < 0;
  }
  if (a.empty() != b.empty()) return a.empty();
  return whole_a < whole_b;  // they differ in leading zeros at most
}

std::vector<std::string> shards_among(std::vector<std::string> names) {
  std::sort(names.begin(), names.end(), naturally_before);
  std::erase_if(names, [](const std::string& name) { return name.starts_with('.'); });
  const auto with = [&](std::initializer_list<std::string_view> suffixes) {
    std::vector<std::string> found;
    for (const std::string& name : names) {
      const auto ends = [&](std::string_view suffix) { return name.ends_with(suffix); };
      if (std::any_of(suffixes.begin(), suffixes.end(), ends)) found.push_back(name);
    }
    return found;
  };
  if (auto found = with({".safetensors"}); !found.empty()) return found;
  if (auto found = with({".bin", ".pt"}); !found.empty()) return found;
  return names;
}

std::vector<std::string> files_of(const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (status.type() == fs::file_type::not_found) {
      fail(path, "stat", {ENOENT, std::generic_category()});
    }
    if (error) fail(path, "stat", error);
    if (status.type() != fs::file_type::directory) {
      files.push_back(path);
      continue;
    }
    const auto names = shards_among(regular_files(path));
    if (names.empty()) throw UsageError("no files in the folder " + quoted_name(path));
    for (const std::string& name : names) files.push_back((fs::path(path) / name).string());
  }
  std::sort(files.begin(), files.end(), naturally_before);
  return files;
}

std::vector<std::string> Workload::paths() const {
  std::vector<std::string> found;
  found.reserve(files.size());
  for (const MeasuredFile& file : files) found.push_back(file.path);
  return found;
}

Workload workload_of(FileIo& io, const std::vector<std::string>& paths, std::uint64_t limit_bytes) {
  const FileTable table(io, paths, default_max_open_files());
  Workload workload;
  std::set<std::string> seen;
  for (std::size_t i = 0; i < table.size(); ++i) {
    const std::string& real_path = table.real_path(i);
    if (!seen.insert(real_path.empty() ? table.path(i) : real_path).second) continue;
    ++workload.total_files;
    const std::uint64_t size_bytes = table.size_bytes(i);
    workload.total_bytes += size_bytes;
    std::uint64_t measured_bytes = size_bytes;
    if (limit_bytes > 0) {
      const std::uint64_t left_bytes = limit_bytes - std::min(limit_bytes, workload.measured_bytes);
      if (left_bytes < size_bytes) {
        measured_bytes = std::min(align_up(left_bytes, page_bytes()), size_bytes);
      }
    }
    if (measured_bytes == 0) continue;
    workload.files.push_back({table.path(i), size_bytes, measured_bytes});
    workload.measured_bytes += measured_bytes;
  }
  return workload;
}

std::vector<PlannedFile> planned_files(const Workload& workload) {
  std::vector<PlannedFile> files;
  files.reserve(workload.files.size());
  for (const MeasuredFile& file : workload.files) {
    PlannedFile planned{file.size_bytes, std::nullopt};
    if (file.measured_bytes < file.size_bytes) {
      planned.spans = std::vector<ByteRange>{{0, file.measured_bytes}};
    }
    files.push_back(std::move(planned));
  }
  return files;
}

}  // namespace shardahead::bench
