// text: the layout of the table, the whole text of a bench, and its JSON.
#include "text.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "json_document.h"
#include "table.h"

using namespace shardahead;
using namespace shardahead::bench;

TEST_SUITE_BEGIN("bench_text");

namespace {

// One cell of two repeats, one measured and one that failed.
Bench small_bench() {
  Bench bench;
  bench.options.repeats = 2;
  bench.options.paths = {"/models/m\xff"};
  bench.workload.measured_bytes = kGiB;
  bench.workload.files = {{"/models/m\xff", kGiB, kGiB}};
  bench.mounts.emplace_back();
  Repeat measured;
  measured.number = 1;
  measured.outcome = RepeatOutcome::measured;
  measured.measured_bytes = kGiB;
  measured.seconds = 2;
  measured.resident_before_bytes = 0;
  measured.resident_after_bytes = kGiB - 4096;
  Repeat failed;
  failed.number = 2;
  failed.reason = "Input/output error";
  failed.error_count = 1;
  failed.errors = {{5, "pread", "/models/m\xff", 4096, ""}};
  bench.results = {{{{Strategy::automatic, 4, 16 * kMiB}, CacheState::cold}, {measured, failed}}};
  bench.summaries = {summary_of(bench.results[0])};
  bench.recommendation = recommend(bench.summaries);
  return bench;
}

}  // namespace

TEST_CASE("columns are aligned and lines end without blanks") {
  CHECK(layout({{"name", false}, {"n", true}, {"end", false}},
               {{"a", "1", "x"}, {"longer", "12345", ""}, {"b"}}) ==
        "name        n  end\n"
        "a           1  x\n"
        "longer  12345\n"
        "b\n");
  CHECK(layout({{"alone", true}}, {}) == "alone\n");
}

TEST_CASE("a cell without figures shows none") {
  CellSummary cell;
  cell.cell = {{Strategy::pread, 2, 4 * kMiB}, CacheState::cold};
  const std::string table = table_of({cell}, 3);
  CHECK(table.find("0/3") != std::string::npos);
  const std::string row = table.substr(table.find('\n') + 1);
  CHECK(row.find("4MiB") != std::string::npos);
  CHECK(row.find("not told") == std::string::npos);
  CHECK(row.find('.') == std::string::npos);
}

TEST_CASE("the text says what was measured, what failed, and what follows") {
  const std::string text = text_of(small_bench());
  CHECK(text.find("537") != std::string::npos);       // MB/s
  CHECK(text.find("99.9 %") != std::string::npos);    // never rounded up to 100
  CHECK(text.find("not told") != std::string::npos);  // the requests
  CHECK(text.find("1 repeat failed: Input/output error") != std::string::npos);
  CHECK(text.find("the defaults (auto, 4 threads, 16MiB) are as good") != std::string::npos);
  CHECK(text.find("INCOMPLETE") == std::string::npos);
  Bench interrupted = small_bench();
  interrupted.signal = 2;
  CHECK(text_of(interrupted).find("INCOMPLETE") != std::string::npos);
}

TEST_CASE("a name of any bytes can be had back from the JSON, as from that of Python") {
  Bench bench = small_bench();
  // Not UTF-8; and the character that stands for a byte meanwhile, as its four bytes.
  bench.options.paths = {"/\xc3\xbc\xff", "/\xf4\x8f\xb2\x80", "/gr\xc3\xbc\xc3\x9f",
                         "/\\udbff\\udc80"};
  const std::string text = json_of(bench);
  CHECK(text.find(R"("/models/m\udcff")") != std::string::npos);
  CHECK(text.find(R"(["/\udcc3\udcbc\udcff","/\udcf4\udc8f\udcb2\udc80","/gr\u00fc\u00df",)"
                  R"("/\\udbff\\udc80"])") != std::string::npos);
}

TEST_CASE("the JSON says the same, each repeat by itself") {
  Bench bench = small_bench();
  bench.options.paths = {"/models/m"};
  bench.workload.files[0].path = "/models/m";
  bench.results[0].repeats[1].errors[0].path = "/models/m";
  const auto document = nlohmann::json::parse(json_of(bench));
  CHECK(document["schema"] == "shardahead/bench/1");
  CHECK_FALSE(document["complete"].get<bool>());
  const auto& cell = document["cells"][0];
  CHECK(cell["counted_repeats"] == 1);
  CHECK(cell["seconds"]["median"] == 2.0);
  CHECK(cell["read_requests"].is_null());
  CHECK(cell["repeats"][0]["outcome"] == "measured");
  CHECK(cell["repeats"][1]["outcome"] == "failed");
  CHECK_FALSE(cell["repeats"][1].contains("seconds"));
  CHECK(cell["repeats"][1]["errors"][0]["errno"] == 5);
  CHECK(cell["repeats"][1]["errors"][0]["offset"] == 4096);
  CHECK(document["recommendation"]["advice"] == "defaults");
  CHECK(document["mounts"][0]["read_ahead_kib"].is_null());
}
