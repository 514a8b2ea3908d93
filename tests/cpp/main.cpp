// main: runs doctest; a selection that matches no test case fails instead of passing. Page cache
// belongs to the kernel: where it has taken file pages back during a run that failed, or may have,
// the run says nothing, and is repeated.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

namespace {

constexpr int kMostRuns = 3;

// Pages that the kernel has taken back since it started, by any of its ways (kswapd, direct,
// khugepaged, proactive); 0 where it does not say. What a program evicts is not among them.
std::uint64_t reclaimed_pages() {
  std::ifstream counters("/proc/vmstat");
  std::uint64_t sum = 0;
  std::string name;
  for (std::uint64_t count = 0; counters >> name >> count;) {
    if (name == "pgsteal_file") sum += count;
  }
  return sum;
}

// What DAMON pages out is counted nowhere, and may be what has just been brought in.
bool pages_out_unseen() {
  namespace fs = std::filesystem;
  const fs::path kdamonds = "/sys/kernel/mm/damon/admin/kdamonds";
  std::error_code error;
  fs::recursive_directory_iterator entry(kdamonds, error);
  for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    std::string action;
    if (entry->path().filename() == "action" && std::ifstream(entry->path()) >> action &&
        action == "pageout") {
      return true;
    }
  }
  return false;
}

unsigned selected_test_cases = 0;

// A listener, which doctest calls beside its reporter.
struct SelectionCounter : doctest::IReporter {
  explicit SelectionCounter(const doctest::ContextOptions&) {}
  void test_run_end(const doctest::TestRunStats& stats) override {
    selected_test_cases = stats.numTestCasesPassingFilters;
  }
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_case_start(const doctest::TestCaseData&) override {}
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override {}
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}
};

REGISTER_LISTENER("selection", 1, SelectionCounter);

}  // namespace

int main(int argc, char** argv) {
  doctest::Context context(argc, argv);
  int result = 0;
  for (int run = 1; run <= kMostRuns; ++run) {
    const std::uint64_t before = reclaimed_pages();
    result = context.run();
    const std::uint64_t reclaimed = reclaimed_pages() - before;
    if (result == 0 || context.shouldExit()) break;
    if (reclaimed == 0 && !pages_out_unseen()) break;
    std::fprintf(stderr, "the kernel took back %ju file pages%s during run %d of at most %d\n",
                 static_cast<std::uintmax_t>(reclaimed),
                 reclaimed == 0 ? ", or more, which DAMON does not count," : "", run, kMostRuns);
  }
  if (context.shouldExit()) return result;  // a query such as --list-test-cases
  if (selected_test_cases == 0) {
    std::fputs("no test case matches the selection\n", stderr);
    return 1;
  }
  return result;
}
