// main: shardahead-bench. Reads the command line, lets the bench run, prints the result, turns it
// into an exit status. Measures nothing itself.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <iostream>
#include <string>
#include <system_error>

#include "base/error.h"
#include "bench.h"
#include "json_document.h"
#include "run.h"
#include "text.h"
#include "units.h"

namespace shardahead::bench {
namespace {

constexpr int kDone = 0;
constexpr int kIncomplete = 1;
constexpr int kWrongUsage = 2;
constexpr std::size_t kUsualColumns = 80;
constexpr int kSignalled = 128;  // and the signal's number, as shells say it

// A standard stream that is closed counts as /dev/null: files would get its number, and what is
// printed would be written to them.
void provide_standard_streams() {
  int descriptor = 0;
  do {
    descriptor = ::open("/dev/null", O_RDWR);
  } while (descriptor >= 0 && descriptor <= STDERR_FILENO);
  if (descriptor >= 0) ::close(descriptor);
}

// Of the terminal that standard output is; 0 where it is none.
std::size_t terminal_columns() {
  if (::isatty(STDOUT_FILENO) != 1) return 0;
  winsize size{};
  const bool known = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : kUsualColumns;
}

// Opened before anything is measured: hours of figures must not be lost to a wrong folder.
std::ofstream opened(const std::string& path) {
  std::ofstream file;
  if (path.empty()) return file;
  file.open(path, std::ios::binary | std::ios::trunc);
  if (!file) throw IoException({errno, "open", path, 0, ""});
  return file;
}

void write_all(std::ofstream& file, const std::string& path, const std::string& text) {
  if (path.empty()) return;
  file << text << std::flush;
  if (!file) throw IoException({errno, "write", path, 0, ""});
}

int measure(const Options& options) {
  std::ofstream output = opened(options.output);
  remember_signals();
  const bool tell = ::isatty(STDERR_FILENO) == 1;
  const Bench bench = run_bench(options, [tell](const std::string& line) {
    if (tell) std::cerr << line << '\n';
  });
  signals_are_over();
  const std::string json = options.json || !options.output.empty() ? json_of(bench) + "\n" : "";
  std::cout << (options.json ? json : text_of(bench, terminal_columns())) << std::flush;
  write_all(output, options.output, json);
  if (bench.signal != 0) {
    std::cerr << "shardahead-bench: incomplete: " << cause_of(bench.signal) << '\n';
    return kSignalled + bench.signal;
  }
  if (!std::cout) throw std::runtime_error("cannot write to standard output");
  return bench.complete() ? kDone : kIncomplete;
}

int main_or_throw(int argc, const char* const* argv) {
  const Options options = parse_options(argc, argv);
  if (options.show_help) {
    std::cout << usage_text();
    return kDone;
  }
  if (options.show_version) {
    std::cout << "shardahead-bench " << version() << '\n';
    return kDone;
  }
  return measure(options);
}

}  // namespace
}  // namespace shardahead::bench

int main(int argc, char** argv) {
  using shardahead::bench::printable;
  try {
    shardahead::bench::provide_standard_streams();
    return shardahead::bench::main_or_throw(argc, argv);
  } catch (const shardahead::bench::UsageError& error) {
    std::cerr << "shardahead-bench: " << error.what() << "\nTry 'shardahead-bench --help'.\n";
    return shardahead::bench::kWrongUsage;
  } catch (const shardahead::IoException& error) {
    std::cerr << "shardahead-bench: " << shardahead::bench::describe(error.error()) << '\n';
    return shardahead::bench::kIncomplete;
  } catch (const std::exception& error) {
    std::cerr << "shardahead-bench: " << printable(error.what()) << '\n';
    return shardahead::bench::kIncomplete;
  }
}
