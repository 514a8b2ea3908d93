#include "options.h"

#include <algorithm>
#include <cxxopts/cxxopts.hpp>

#include "base/proc_text.h"
#include "engine/engine.h"
#include "plan/plan.h"
#include "units.h"

namespace shardahead::bench {
namespace {

std::string strategy_names() {
  std::vector<std::string> names;
  for (const Strategy strategy : kStrategies) names.emplace_back(to_string(strategy));
  return joined(names, ",");
}

constexpr const char* kAfter = R"(
A cell is one strategy with one number of threads, one block size and one state of the page cache.
Without options there are 12: auto, fadvise and pread, with 1 and with 4 threads, in blocks of
16MiB, cold and warm. To look closer:
  --threads 1,2,4,8 --block-size 4MiB,16MiB,64MiB

The measured files are dropped from the page cache before each cold cell. A folder stands for its
*.safetensors, else its *.bin and *.pt, else all its regular files that are not hidden.

Exit status: 0 all was measured, 1 something was not (the output says what and why), 2 wrong usage,
130 interrupted.
)";

[[noreturn]] void refuse(const std::string& option, const std::string& value,
                         const std::string& why) {
  throw UsageError("--" + option + " " + printable(value) + ": " + why);
}

// Each of the values between the commas, none of them twice.
template <typename Parse>
auto parse_list(const std::string& option, const std::string& text, Parse parse) {
  std::vector<decltype(parse(text))> values;
  for (const std::string_view view : split(text, ',')) {
    const std::string part(view);
    const auto value = parse(part);
    if (std::find(values.begin(), values.end(), value) != values.end()) {
      refuse(option, text, printable(part) + " is there twice");
    }
    values.push_back(value);
  }
  return values;
}

std::uint32_t parse_number(const std::string& option, const std::string& text, std::uint32_t most) {
  const auto value = parse_count(text);
  if (!value || *value < 1 || *value > most) {
    refuse(option, text, "must be a whole number from 1 to " + std::to_string(most));
  }
  return static_cast<std::uint32_t>(*value);
}

std::uint64_t parse_block_bytes(const std::string& option, const std::string& text) {
  const auto value = parse_bytes(text);
  if (!value || *value < kMinBlockBytes || *value > kMaxBlockBytes ||
      *value % kMinBlockBytes != 0) {
    refuse(option, text,
           "must be a number of bytes from " + exact_bytes(kMinBlockBytes) + " to " +
               exact_bytes(kMaxBlockBytes) + ", in steps of " + exact_bytes(kMinBlockBytes));
  }
  return *value;
}

Strategy parse_strategy(const std::string& option, const std::string& text) {
  const auto strategy = strategy_from(text);
  if (!strategy) refuse(option, text, "must be one of " + strategy_names());
  return *strategy;
}

CacheState parse_state(const std::string& option, const std::string& text) {
  for (const CacheState state : {CacheState::cold, CacheState::warm}) {
    if (text == to_string(state)) return state;
  }
  refuse(option, text, "must be one of cold, warm");
}

template <typename Value, typename Print>
std::string listed(const std::vector<Value>& values, Print print) {
  std::vector<std::string> parts;
  parts.reserve(values.size());
  for (const Value& value : values) parts.emplace_back(print(value));
  return joined(parts, ",");
}

// Every value is taken as text: the library's own errors name the value, but not the option.
cxxopts::Options described() {
  const Options defaults;
  const auto text = [](const std::string& value) {
    return cxxopts::value<std::string>()->default_value(value);
  };
  cxxopts::Options options("shardahead-bench",
                           "Measures how fast a checkpoint comes into the page cache, cell by "
                           "cell, and recommends settings.\n");
  options.custom_help("[OPTIONS] PATH...").set_width(100);
  options.add_options()  //
      ("strategy,strategies", "any of " + strategy_names(),
       text(listed(defaults.strategies, [](Strategy value) { return to_string(value); })),
       "LIST")  //
      ("threads", "worker threads, each 1 to 256",
       text(listed(defaults.threads, [](std::uint32_t value) { return std::to_string(value); })),
       "LIST")  //
      ("block-size,block-sizes", "bytes of a block, each 4KiB to 1GiB",
       text(listed(defaults.block_bytes, exact_bytes)), "LIST")  //
      ("states", "cold, warm or both",
       text(listed(defaults.states, [](CacheState value) { return to_string(value); })),
       "LIST")  //
      ("repeats", "how often all cells are visited", text(std::to_string(defaults.repeats)),
       "N")  //
      ("limit", "bytes measured per cell, from the first file on; 0: everything",
       text(exact_bytes(defaults.limit_bytes)), "BYTES")                                      //
      ("v,verbose", "all columns of the table, however wide the terminal is")                 //
      ("json", "print one JSON object instead of the table")                                  //
      ("output", "write the JSON object to FILE too", cxxopts::value<std::string>(), "FILE")  //
      ("shown-as", "how the command that is recommended names the files, instead of each PATH",
       cxxopts::value<std::string>(), "WORDS")  //
      ("h,help", "show this")                   //
      ("version", "show the version");
  return options;
}

void refuse_indexes(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    if (path.empty()) throw UsageError("PATH is empty");
    if (path.ends_with(".index.json")) {
      throw UsageError(quoted_name(path) + " is an index: name its folder or its files");
    }
  }
}

}  // namespace

const char* to_string(CacheState state) noexcept {
  return state == CacheState::cold ? "cold" : "warm";
}

std::string usage_text() { return described().help() + kAfter; }

Options parse_options(int argc, const char* const* argv) {
  auto description = described();
  cxxopts::ParseResult found;
  try {
    found = description.parse(argc, argv);
  } catch (const cxxopts::exceptions::exception& error) {
    throw UsageError(printable(error.what()));
  }
  Options options;
  options.show_help = found.count("help") > 0;
  options.show_version = found.count("version") > 0;
  if (options.show_help || options.show_version) return options;
  const auto text = [&](const char* name) { return found[name].as<std::string>(); };
  const auto list = [&](const std::string& name, auto parse) {
    return parse_list(name, text(name.c_str()),
                      [&](const std::string& part) { return parse(name, part); });
  };
  options.strategies = list("strategy", parse_strategy);
  options.threads = list("threads", [](const std::string& name, const std::string& part) {
    return parse_number(name, part, kMaxThreads);
  });
  options.block_bytes = list("block-size", parse_block_bytes);
  options.states = list("states", parse_state);
  options.repeats = parse_number("repeats", text("repeats"), kMaxRepeats);
  const auto limit_bytes = parse_bytes(text("limit"));
  if (!limit_bytes) {
    refuse("limit", text("limit"), "must be a number of bytes, for example 16777216 or 2GiB");
  }
  options.limit_bytes = *limit_bytes;
  options.verbose = found["verbose"].as<bool>();
  options.json = found["json"].as<bool>();
  if (found.count("output") > 0) options.output = text("output");
  if (found.count("shown-as") > 0) options.shown_as = text("shown-as");
  options.paths = found.unmatched();
  if (options.paths.empty()) throw UsageError("PATH is needed: files or folders to measure");
  refuse_indexes(options.paths);
  return options;
}

}  // namespace shardahead::bench
