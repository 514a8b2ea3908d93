#include "simulated_reader.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "board/patience.h"
#include "reader/piece_reader.h"
#include "simulated_content.h"

namespace shardahead::testing {
namespace {

using std::chrono::nanoseconds;

constexpr double kLongestWaitSeconds = 300;
constexpr std::uint64_t kMostQueued = 16;  // parts
constexpr std::uint64_t kTrialBytes = 16;  // of some preads of one byte each
// A trial that hangs for so long holds up no one: each thread may bring in a block meanwhile.
constexpr auto kTrialPatience = std::chrono::seconds(1);

}  // namespace

SimulatedReader::SimulatedReader(SimulatedNode& node, Rank rank, FileIo& io, RankFileIo& rank_io,
                                 Runtime& runtime, std::uint64_t seed)
    : node_(node),
      rank_(std::move(rank)),
      scenario_(node.scenario.ranks[rank_.index]),
      ledger_(node.ledger, rank_.index, scenario_.reading->ahead_bytes),
      io_(io, node.options.bug,
          [this](std::uint32_t file, ByteRange range) { ledger_.read(file, range); }),
      rank_io_(rank_io),
      runtime_(runtime),
      random_(seed) {
  rank_io_.fill_buffers(
      [this](std::uint32_t file) { node_.shared_reading.opens(rank_.index, file); });
}

std::uint64_t SimulatedReader::Part::length_bytes() const {
  if (runs) return runs->packed_bytes();
  return std::accumulate(lengths_bytes.begin(), lengths_bytes.end(), std::uint64_t{0});
}

ByteRange SimulatedReader::Part::range() const {
  return {offset, runs ? runs->extent_bytes() : length_bytes()};
}

void SimulatedReader::make_reader(bool through_mappings) {
  std::vector<std::string> paths;
  std::vector<FileStatus> found(node_.scenario.sizes_bytes.size());
  for (std::uint32_t file = 0; file < found.size(); ++file) {
    paths.push_back(RankFileIo::path(file));
    rank_io_.status(paths.back(), found[file]);
  }
  TensorReaderOptions options{.threads = scenario_.threads,
                              .ahead_bytes = scenario_.reading->ahead_bytes,
                              .piece_bytes = scenario_.reading->piece_bytes,
                              .through_mappings = through_mappings,
                              .found = std::move(found)};
  if (node_.options.bug == Bug::beyond_ahead) {
    options.ahead_bytes = std::numeric_limits<std::uint64_t>::max() / 2;
  }
  reader_ = std::make_unique<TensorReader>(io_, std::move(paths), options, runtime_);
}

void SimulatedReader::load(Engine* engine) {
  const auto asked = runtime_.now();
  const bool shares = engine != nullptr && keeps_nothing(engine->keeping(rank_.look_up));
  if (runtime_.now() - asked >= kTrialPatience) {
    in_vain_bytes_ = scenario_.threads * node_.scenario.plan.block_bytes;
  }
  make_reader(shares);
  if (shares) {
    meet(*engine);
  } else if (engine != nullptr) {
    node_.shared_reading.exempt();  // it opens files whenever it reads
  }
  ++node_.result.readers;
  std::vector<Part> parts = draw_parts();
  std::vector<const Part*> queued;
  std::uint64_t queued_bytes = 0;
  for (auto next = parts.begin(); next != parts.end() || !queued.empty();) {
    while (next != parts.end() && queued.size() < kMostQueued &&
           (queued.empty() || queued_bytes <= scenario_.reading->ahead_bytes)) {
      add(*next);
      queued_bytes += next->length_bytes();
      queued.push_back(&*next++);
    }
    // Most of them in order.
    const auto taken = queued.begin() + (queued.size() > 1 && random_.chance(10) ? 1 : 0);
    const Part& part = **taken;
    queued.erase(taken);
    queued_bytes -= part.length_bytes();
    take(part);
  }
  check_end(engine == nullptr, shares);
  if (engine != nullptr) engine->end_consumer();
}

void SimulatedReader::meet(Engine& engine) {
  reader_->wait_opened(rank_.look_up);
  const auto began = runtime_.now();
  if (node_.options.bug != Bug::never_met) {
    engine.meet(static_cast<std::uint32_t>(node_.scenario.ranks.size()), rank_.look_up);
  }
  const auto waited = runtime_.now() - began;
  node_.trace.add(runtime_.now(), rank_.index, "met", static_cast<std::uint64_t>(waited.count()));
  const bool alone = !node_.ledger.is_on_board(rank_.index) || engine.cancelled();
  if (!alone && waited < kAbsentPatience) node_.shared_reading.all_have_opened(rank_.index);
}

std::vector<SimulatedReader::Part> SimulatedReader::draw_parts() {
  constexpr std::uint64_t kBegin = 600;  // behind what is read as a header
  static_assert(kBegin > kPrefixBytes);
  std::vector<Part> parts;
  for (std::uint32_t file = 0; file < node_.scenario.sizes_bytes.size(); ++file) {
    const std::uint64_t size_bytes = node_.scenario.sizes_bytes[file];
    parts.emplace_back().file = file;
    for (std::uint64_t at = kBegin; at < size_bytes;) {
      Part part;
      part.file = file;
      part.offset = at;
      if (random_.chance(20)) part.runs = draw_runs(size_bytes - at);
      if (part.runs) {
        at = part.range().end();
        parts.push_back(std::move(part));
        continue;
      }
      for (std::uint64_t count = random_.chance(30) ? random_.between(2, 6) : 1; count > 0;
           --count) {
        std::uint64_t length = random_.between(1, scenario_.tensor_bytes);
        if (random_.chance(5)) length = 0;
        part.lengths_bytes.push_back(std::min(length, size_bytes - at));
        at += part.lengths_bytes.back();
      }
      parts.push_back(std::move(part));
    }
  }
  return parts;
}

std::optional<ByteRuns> SimulatedReader::draw_runs(std::uint64_t most_bytes) {
  const std::uint64_t run_bytes =
      random_.between(1, std::max<std::uint64_t>(1, scenario_.tensor_bytes / 8));
  std::vector<RunLevel> levels;
  std::uint64_t within_bytes = run_bytes;
  const std::uint64_t most_levels = random_.chance(30) ? 2 : 1;
  for (std::uint64_t level = 0; level < most_levels; ++level) {
    const std::uint64_t count = random_.between(2, level == 0 ? 12 : 3);
    const std::uint64_t stride_bytes = within_bytes + random_.spread(1, 128 * kKiB);
    levels.insert(levels.begin(), RunLevel{count, stride_bytes});
    within_bytes = count * stride_bytes;
  }
  const ByteRuns runs(run_bytes, levels);
  return runs.extent_bytes() > most_bytes ? std::nullopt : std::optional(runs);
}

void SimulatedReader::add(Part& part) {
  if (part.is_header()) {
    const std::uint64_t bytes = std::min(kPrefixBytes, node_.scenario.sizes_bytes[part.file]);
    part.asked = ledger_.ask(part.file, {0, bytes}, bytes, 0);
    part.number = reader_->add_header(part.file);
    return;
  }
  const auto lengths_bytes = part.runs ? std::vector{part.length_bytes()} : part.lengths_bytes;
  part.asked = ledger_.ask(part.file, part.range(), part.length_bytes(),
                           TensorMemory::needed_bytes(lengths_bytes));
  part.number = part.runs ? reader_->add_runs(part.file, part.offset, *part.runs)
                          : reader_->add(part.file, part.offset, part.lengths_bytes);
}

void SimulatedReader::take(const Part& part) {
  ledger_.wait_for(part.asked);
  const auto asked = runtime_.now();
  const auto stopped_before = rank_.stopped_for();
  const TakenPart taken = reader_->take(part.number, rank_.look_up);
  ledger_.take(part.asked);
  const double waited_seconds =
      std::chrono::duration<double>(runtime_.now() - asked - (rank_.stopped_for() - stopped_before))
          .count();
  node_.trace.add(runtime_.now(), rank_.index, taken.error ? "part failed" : "part", part.file,
                  part.offset, taken.readable_bytes);
  node_.result.longest_wait_seconds = std::max(node_.result.longest_wait_seconds, waited_seconds);
  if (waited_seconds > kLongestWaitSeconds) broken("a consumer waits on for what it reads");
  check(part, taken);
  node_.threads.sleep(scenario_.work_per_mebibyte * static_cast<std::int64_t>(part.length_bytes()) /
                      static_cast<std::int64_t>(kMiB));
  rank_.look_up();
}

void SimulatedReader::check(const Part& part, const TakenPart& taken) {
  node_.result.read_alone_bytes += taken.readable_bytes;
  if (taken.error) check_error(part, *taken.error);
  if (part.is_header()) {
    check_header(part, taken);
  } else if (part.runs) {
    check_runs(part, *part.runs, taken);
  } else {
    check_tensors(part, taken);
  }
}

void SimulatedReader::check_header(const Part& part, const TakenPart& taken) {
  const std::uint64_t size_bytes = node_.scenario.sizes_bytes[part.file];
  if (!taken.error && taken.file_bytes != size_bytes) broken("a file has another length");
  if (!taken.memory) return;
  const std::uint64_t length = taken.memory->length_bytes(0);
  if (!has_content(part.file, {0, length}, taken.memory->tensor(0))) {
    broken("a header has bytes that are not in its file");
  }
}

void SimulatedReader::check_tensors(const Part& part, const TakenPart& taken) {
  const std::uint64_t readable =
      taken.error ? taken.error->offset - part.offset : part.length_bytes();
  if (taken.readable_bytes != readable) broken("it is not told what could be read");
  std::uint64_t at = 0;
  for (std::size_t tensor = 0; tensor < part.lengths_bytes.size(); ++tensor) {
    const std::uint64_t length = part.lengths_bytes[tensor];
    const std::uint64_t whole = std::min(length, readable - std::min(readable, at));
    if (whole > 0 &&
        !has_content(part.file, {part.offset + at, whole}, taken.memory->tensor(tensor))) {
      broken("a tensor has bytes that are not in its file");
    }
    at += length;
  }
}

// They land packed, all of them or none.
void SimulatedReader::check_runs(const Part& part, const ByteRuns& runs, const TakenPart& taken) {
  const std::uint64_t readable = taken.error ? 0 : runs.packed_bytes();
  if (taken.readable_bytes != readable) broken("it is not told that a part could be read");
  if (taken.error) return;
  const std::byte* at = taken.memory->tensor(0);
  for (const ByteRange& run : runs.ranges()) {
    if (!has_content(part.file, {part.offset + run.offset, run.length}, at)) {
      broken("a part of a tensor has bytes that are not in its file");
    }
    at += run.length;
  }
}

// Each error is one of those that were planted, and lies where it was.
void SimulatedReader::check_error(const Part& part, const IoError& error) {
  const std::uint64_t length = std::max(part.range().length, kPrefixBytes);
  const ByteRange rest{error.offset,
                       part.offset + length - std::min(error.offset, part.offset + length)};
  const bool caused = std::ranges::any_of(scenario_.faults, [&](const Fault& fault) {
    if (fault.path_suffix != error.path) return false;
    if (fault.operation == Operation::open) return error.errno_value == fault.errno_value;
    if (fault.operation != Operation::pread || rest.empty()) return false;
    if (rest.offset >= fault.to_offset || rest.end() <= fault.from_offset) return false;
    return error.errno_value ==
           (fault.kind == FaultKind::end_of_file ? ENODATA : fault.errno_value);
  });
  if (!caused || error.path != RankFileIo::path(part.file)) {
    broken("a part fails without a cause: " + error.operation + ": " + error.message());
  }
  if (error.offset < part.offset || error.offset > part.offset + length) {
    broken("an error lies outside of its part");
  }
  if (!part.runs || error.operation == "open") return;
  const auto runs = part.runs->ranges();
  const bool wanted = std::ranges::any_of(runs, [&](const ByteRange& run) {
    const std::uint64_t begin = part.offset + run.offset;
    return error.offset >= begin && error.offset < begin + run.length;
  });
  if (!wanted) broken("an error lies in a gap of a part");
}

void SimulatedReader::check_end(bool alone, bool shares) {
  const std::uint64_t direct_bytes = rank_io_.direct_bytes();
  node_.trace.add(runtime_.now(), rank_.index, "loaded", ledger_.asked_bytes(),
                  ledger_.read_bytes(), direct_bytes);
  if (!scenario_.faults.empty()) return;
  ledger_.check_end();
  // An engine that does not know what the mount keeps reads as well.
  if (alone && direct_bytes > ledger_.asked_bytes()) broken("more comes than is read");
  // Without a thread it reads as one that is alone does.
  const bool has_threads = scenario_.most_threads >= kAllThreads;
  if (shares && has_threads && direct_bytes > kTrialBytes + in_vain_bytes_) {
    broken("what is shared is read by itself");
  }
}

void SimulatedReader::close() {
  if (reader_) reader_->close();
}

}  // namespace shardahead::testing
