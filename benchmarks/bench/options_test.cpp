// options: what the command line may say, and that a refusal names option and value.
#include "options.h"

#include <doctest/doctest.h>

using namespace shardahead;
using namespace shardahead::bench;

TEST_SUITE_BEGIN("bench_options");

namespace {

Options parsed(std::vector<const char*> words) {
  words.insert(words.begin(), "shardahead-bench");
  return parse_options(static_cast<int>(words.size()), words.data());
}

std::string refusal_of(const std::vector<const char*>& words) {
  try {
    parsed(words);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "taken";
}

}  // namespace

TEST_CASE("without options a matrix that a first run can afford") {
  const Options options = parsed({"/models/m"});
  CHECK(options.paths == std::vector<std::string>{"/models/m"});
  CHECK(options.strategies.size() * options.threads.size() * options.block_bytes.size() <= 6);
  CHECK(options.states == std::vector{CacheState::cold, CacheState::warm});
  CHECK(options.repeats == 3);
  CHECK(options.limit_bytes == 2 * kGiB);
  CHECK_FALSE(options.json);
}

TEST_CASE("every option") {
  const Options options = parsed({"--strategies", "pread,auto", "--threads=1,8", "--block-sizes",
                                  "4M,1GiB", "--states", "warm", "--repeats", "5", "--limit", "0",
                                  "--json", "--output", "f", "a,b", "--", "-c"});
  CHECK(options.strategies == std::vector{Strategy::pread, Strategy::automatic});
  CHECK(options.threads == std::vector<std::uint32_t>{1, 8});
  CHECK(options.block_bytes == std::vector<std::uint64_t>{4 * kMiB, 1 * kGiB});
  CHECK(options.states == std::vector{CacheState::warm});
  CHECK(options.repeats == 5);
  CHECK(options.limit_bytes == 0);
  CHECK(options.json);
  CHECK(options.output == "f");
  CHECK(options.paths == std::vector<std::string>{"a,b", "-c"});
}

TEST_CASE("options of shardahead warm have the same names") {
  const Options options =
      parsed({"--strategy", "pread", "--block-size", "4M", "--shown-as", "/m a", "/m/1"});
  CHECK(options.strategies == std::vector{Strategy::pread});
  CHECK(options.block_bytes == std::vector<std::uint64_t>{4 * kMiB});
  CHECK(options.shown_as == "/m a");
  CHECK_FALSE(options.verbose);
  CHECK(parsed({"-v", "/m/1"}).verbose);
  CHECK(parsed({"--verbose", "/m/1"}).verbose);
}

TEST_CASE("a refused value is named with its option") {
  const std::vector<std::pair<const char*, const char*>> wrong{
      {"--strategy", "magic"},    {"--strategy", "auto,"},  {"--strategy", "auto,auto"},
      {"--threads", "0"},         {"--threads", "257"},     {"--threads", "-1"},
      {"--threads", "many"},      {"--threads", "1,,2"},    {"--block-size", "3"},
      {"--block-size", "6KB"},    {"--block-size", "2GiB"}, {"--states", "lukewarm"},
      {"--repeats", "0"},         {"--repeats", "1.5"},     {"--limit", "-1"},
      {"--limit", "16 potatoes"}, {"--limit", "1.5"}};
  for (const auto& [option, value] : wrong) {
    const std::string refusal = refusal_of({option, value, "/models/m"});
    CAPTURE(refusal);
    CHECK(refusal.find(option) != std::string::npos);
    const std::string whole = value;
    const std::string last = whole.substr(whole.rfind(',') + 1);
    CHECK(refusal.find(last) != std::string::npos);
  }
}

TEST_CASE("what is missing or unknown is named") {
  CHECK(refusal_of({}).find("PATH") != std::string::npos);
  CHECK(refusal_of({""}).find("PATH") != std::string::npos);
  CHECK(refusal_of({"--no-such-option", "x"}).find("no-such-option") != std::string::npos);
  CHECK(refusal_of({"x", "--threads"}).find("threads") != std::string::npos);
  CHECK(refusal_of({"x.index.json"}).find("x.index.json") != std::string::npos);
}

TEST_CASE("help and version want nothing else") {
  CHECK(parsed({"--help"}).show_help);
  CHECK(parsed({"--version"}).show_version);
  CHECK(refusal_of({"-V", "/models/m"}).find("does not exist") != std::string::npos);
  CHECK(usage_text().find("--block-size") != std::string::npos);
  CHECK(usage_text().find("readahead") != std::string::npos);  // every strategy is listed
}
