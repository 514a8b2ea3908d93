// text: the layout of the table, the whole text of a bench, and its JSON.
#include "text.h"

#include <doctest/doctest.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/proc_text.h"
#include "json_document.h"
#include "run.h"
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
  failed.reason = describe({5, "pread", "/models/m\xff", 4096, ""});
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
  CHECK(text.starts_with("shardahead-bench "));
  CHECK(text.find("537") != std::string::npos);       // MB/s
  CHECK(text.find("99.9 %") != std::string::npos);    // never rounded up to 100
  CHECK(text.find("not told") != std::string::npos);  // the requests
  CHECK(text.find("1 repeat failed: pread '/models/m\xff' at offset 4096: Input/output error") !=
        std::string::npos);
  CHECK(text.find("the defaults (auto, 4 threads, 16MiB) are as good") != std::string::npos);
  CHECK(text.find("incomplete") == std::string::npos);
  Bench interrupted = small_bench();
  interrupted.signal = SIGINT;
  CHECK(text_of(interrupted).find("\nincomplete: interrupted\n") != std::string::npos);
  interrupted.signal = SIGTERM;
  CHECK(text_of(interrupted).find("\nincomplete: terminated by SIGTERM\n") != std::string::npos);
}

TEST_CASE("all of it fits a terminal, and -v shows what was left out") {
  Bench bench = small_bench();
  bench.mounts.back().mount.type = "nfs4";
  bench.mounts.back().mount.mount_point = "/models";
  bench.mounts.back().mount.options = std::vector<std::string>(30, "an-option=of-the-mount");
  bench.node.cpu_model = "A Processor With A Name That Is Longer Than Most Of Them Are, 64 Cores";
  bench.options.verbose = false;
  const std::string text = text_of(bench, 80);
  for (const std::string_view line : split(text, '\n')) CHECK(line.size() <= 80);
  CHECK(text.find("MB/s") != std::string::npos);
  CHECK(text.find("CPU s/GiB") != std::string::npos);
  CHECK(text.find("\n-v shows also: ") != std::string::npos);
  CHECK(text.find("requests, wire, lost, step") != std::string::npos);
  CHECK(text_of(bench, 200).find("-v shows") == std::string::npos);
  bench.options.verbose = true;
  CHECK(text_of(bench, 80).find("  lost ") != std::string::npos);
}

TEST_CASE("a line is broken where it can be") {
  CHECK(wrapped("as it is", 0) == "as it is");
  CHECK(wrapped("as it is", 8) == "as it is");
  CHECK(wrapped("one two three four", 9) == "one two\n    three\n    four");
  CHECK(wrapped("  a,b,c,d,e,f", 8) == "  a,b,c,\n    d,e,\n    f");
  CHECK(wrapped("a-word-without-an-end and one", 10) == "a-word-without-an-end\n    and\n    one");
  CHECK(wrapped("one two 1,250,000", 14) == "one two\n    1,250,000");
  CHECK(wrapped("", 10).empty());
}

TEST_CASE("columns that matter least are left out first") {
  std::vector<Column> columns{{"name", false, 0}, {"n", true, 2}, {"end", false, 1}};
  std::vector<std::vector<std::string>> rows{{"a", "1", "x"}, {"b"}};
  CHECK(width_of(columns, rows) == 12);
  CHECK(narrow(columns, rows, 12).empty());
  CHECK(narrow(columns, rows, 9) == std::vector<std::string>{"n"});
  CHECK(layout(columns, rows) == "name  end\na     x\nb\n");
  CHECK(narrow(columns, rows, 1) == std::vector<std::string>{"end"});
  CHECK(layout(columns, rows) == "name\na\nb\n");
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
