// replay: what drives a fuzz target where there is no libFuzzer: every file of a corpus, then
// inputs drawn from them by random changes. The same seed gives the same inputs; the coverage of
// the code guides nothing here.
//
//   fuzz_plan [-runs=N] [-seed=N] CORPUS_FOLDER_OR_FILE...
//
// The options are libFuzzer's, others of which are taken and ignored. What ends the process is left
// in the file crash-TARGET in the working folder.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <ranges>
#include <string>
#include <vector>

#include "fuzz_input.h"

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::size_t kMaxBytes = 4096;

std::string crash_path;  // set before the first input
Bytes current;           // what is being run

void keep_input(int signal_number) {
  const int descriptor = ::open(crash_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (descriptor >= 0 && ::write(descriptor, current.data(), current.size()) >= 0) {
    constexpr char kNote[] = "the input is kept in the file crash-TARGET\n";
    if (::write(STDERR_FILENO, kNote, sizeof kNote - 1) < 0) ::_exit(1);
  }
  ::signal(signal_number, SIG_DFL);
  ::raise(signal_number);
}

Bytes read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  Bytes draw(const std::vector<Bytes>& corpus) {
    Bytes input = corpus[below(corpus.size())];
    for (std::size_t changes = 1 + below(6); changes > 0; --changes) change(input, corpus);
    if (input.size() > kMaxBytes) input.resize(kMaxBytes);
    return input;
  }

 private:
  std::size_t below(std::size_t end) { return end == 0 ? 0 : random_() % end; }

  void change(Bytes& input, const std::vector<Bytes>& corpus) {
    static constexpr std::uint8_t kTelling[] = {0,   1,    0x7f, 0x80, 0xff, ' ', ':', ',',
                                                '/', '\\', '-',  '=',  '\n', '0', '9'};
    const std::size_t at = below(input.size() + 1);
    const auto place = input.begin() + static_cast<std::ptrdiff_t>(at);
    const auto to_end = static_cast<std::size_t>(input.end() - place);
    switch (below(6)) {
      case 0:  // one bit
        if (to_end > 0) *place = static_cast<std::uint8_t>(*place ^ (1U << below(8)));
        return;
      case 1:  // one byte
        if (to_end > 0) *place = kTelling[below(std::size(kTelling))];
        return;
      case 2: input.insert(place, 1 + below(16), kTelling[below(std::size(kTelling))]); return;
      case 3:
        input.erase(place, place + static_cast<std::ptrdiff_t>(
                                       below(std::min<std::size_t>(to_end, 32) + 1)));
        return;
      case 4: {  // the beginning of this, the end of another
        const Bytes& other = corpus[below(corpus.size())];
        const std::size_t from = below(other.size() + 1);
        input.erase(place, input.end());
        input.insert(input.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
        return;
      }
      default: {  // a part once more
        const Bytes part(place, place + static_cast<std::ptrdiff_t>(
                                            below(std::min<std::size_t>(to_end, 64) + 1)));
        input.insert(input.begin() + static_cast<std::ptrdiff_t>(below(input.size() + 1)),
                     part.begin(), part.end());
        return;
      }
    }
  }

  std::mt19937_64 random_;
};

std::vector<Bytes> read_corpus(const std::vector<std::filesystem::path>& paths) {
  std::vector<std::filesystem::path> files;
  for (const auto& path : paths) {
    if (!std::filesystem::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(path)) {
      files.push_back(entry.path());
    }
  }
  std::ranges::sort(files);
  std::vector<Bytes> corpus;
  corpus.reserve(files.size());
  for (const auto& file : files) corpus.push_back(read_bytes(file));
  return corpus;
}

void run(Bytes input) {
  current = std::move(input);
  LLVMFuzzerTestOneInput(current.data(), current.size());
}

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t runs = 0;
  std::uint64_t seed = 1;
  std::vector<std::filesystem::path> paths;
  const std::vector<std::string> arguments(argv, argv + argc);
  for (const std::string& argument : arguments | std::views::drop(1)) {
    if (argument.starts_with("-runs=")) runs = std::stoull(argument.substr(6));
    if (argument.starts_with("-seed=")) seed = std::stoull(argument.substr(6));
    if (!argument.starts_with('-')) paths.emplace_back(argument);
  }
  crash_path = "crash-" + std::filesystem::path(arguments.at(0)).filename().string();
  for (const int fatal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) ::signal(fatal, keep_input);
  const std::vector<Bytes> corpus = read_corpus(paths);
  if (corpus.empty()) {
    std::fputs("no corpus\n", stderr);
    return 1;
  }
  for (const Bytes& input : corpus) run(input);
  Mutator mutator(seed);
  for (std::uint64_t i = 0; i < runs; ++i) run(mutator.draw(corpus));
  std::printf("%zu inputs of the corpus, %llu drawn\n", corpus.size(),
              static_cast<unsigned long long>(runs));
  return 0;
}
