// Any bytes over a board in use, then any operations of two participants on it: nothing outside the
// plan is given out, and however wrong the board, whoever looks for claims of the dead for long
// enough sees the end of all blocks.
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "board/board.h"
#include "board/board_memory.h"
#include "fuzz_input.h"

using namespace shardahead;
using fuzzing::require;

namespace {

constexpr std::uint64_t kNoLimit = ~std::uint64_t{0};

// One for all inputs; gone when the program ends, unless an input has killed it.
class Folder {
 public:
  Folder() {
    if (::access("/dev/shm", W_OK) != 0) path_ = "/tmp/shardahead-fuzz-XXXXXX";
    require(::mkdtemp(path_.data()) != nullptr, "a folder for the board");
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_ = "/dev/shm/shardahead-fuzz-XXXXXX";
};

const std::string& folder() {
  static const Folder made;
  return made.path();
}

// Moved by the operations, so that an input always does the same.
class InputClock final : public Runtime {
 public:
  void pass(std::chrono::seconds time) { now_ += time; }
  Time now() noexcept override { return now_; }
  void wait_for_ring(const DoorbellWord&, std::uint32_t,
                     std::chrono::nanoseconds) noexcept override {}
  void start_thread(const std::string&, std::function<void()>) override { std::abort(); }

 private:
  Time now_;
};

constexpr std::uint64_t kBlockBytes = 256 * kKiB;  // four grains

// The same blocks, whatever is wanted of them.
std::shared_ptr<const Plan> plan_of(std::size_t block_count,
                                    std::optional<std::vector<ByteRange>> spans) {
  PlanOptions options;
  options.block_bytes = options.head_block_bytes = kBlockBytes;
  return std::make_shared<const Plan>(
      std::vector<PlannedFile>{{block_count * kBlockBytes, std::move(spans)}}, options);
}

std::vector<ByteRange> spans_of(fuzzing::FuzzInput& input) {
  std::vector<ByteRange> spans;
  for (std::uint8_t count = input.byte() % 8; count > 0; --count) {
    const std::uint64_t offset = input.number(3);
    spans.push_back({offset, input.number(3)});
  }
  return spans;
}

// Never more than a plan's share of it is wanted.
std::unique_ptr<BoardClaims> join(const std::shared_ptr<const Plan>& plan, std::uint8_t every,
                                  std::uint64_t set_inflight_bytes, Runtime& clock) {
  std::vector<std::uint32_t> wanted;
  for (std::uint32_t i = 0; i < plan->blocks().size(); i += every) {
    if (plan->wanted_bytes(plan->blocks()[i]) > 0) wanted.push_back(i);
  }
  BoardRefusal refusal;
  return BoardClaims::join(folder(), "board", plan, std::move(wanted), refusal,
                           {set_inflight_bytes}, clock);
}

// What any process of the user could do to the file at any time.
void scribble(fuzzing::FuzzInput& input, std::span<std::byte> memory) {
  std::size_t at = static_cast<std::size_t>(input.number(2)) % memory.size();
  if (input.byte() % 4 != 0) {  // mostly where the blocks are
    at = std::min(memory.size() - 1, sizeof(BoardHeader) + at % 320);
  }
  for (std::uint8_t count = input.byte() % 32; count > 0 && at < memory.size(); --count, ++at) {
    memory[at] = static_cast<std::byte>(input.byte());
  }
}

void check(const BoardClaims& board, const Claim& claim, const Plan& plan) {
  require(claim.block < plan.blocks().size(), "a claim is of a block of the plan");
  const Block& block = plan.blocks()[claim.block];
  const auto ranges = board.ranges(claim);
  require(ranges == merge_ranges(ranges), "what is to be fetched is in order");
  for (const ByteRange& range : ranges) {
    require(intersect(range, block.range) == range, "what is to be fetched lies in the block");
  }
  for (const ByteRange& own : plan.wanted(block)) {
    require(intersect(ranges, own) == std::vector{own}, "what its taker wants is to be fetched");
  }
}

// Comes to an end within rounds, not within a time: nothing here waits.
void bring_to_the_end(BoardClaims& board, const Plan& plan, InputClock& clock) {
  for (std::size_t round = 0; round < 4 * plan.blocks().size() + 8; ++round) {
    if (board.settled(kNoLimit)) return;
    if (const auto claim = board.take(kNoLimit)) {
      check(board, *claim, plan);
      board.settle(*claim, Outcome::done, 1);
    } else {
      board.recover(true);  // as after long without any change
      clock.pass(3 * kMostBlockTime);
    }
  }
  require(false, "all blocks are settled in the end");
}

}  // namespace

// NOLINTNEXTLINE(readability-function-size): one case for each operation
int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  fuzzing::FuzzInput input(bytes, size);
  const std::size_t block_count = 1 + input.byte() % 64;
  const auto plan = plan_of(block_count, std::nullopt);

  // The file stays while this participant, who does nothing, has it open.
  BoardRefusal refusal;
  const auto file = BoardFile::join(folder(), "board", BoardShape(*plan).size_bytes(), refusal);
  if (!file) std::abort();
  const BoardMemory memory(file->memory(), BoardShape(*plan));
  memory.begin();
  const std::span whole(file->memory(), BoardShape(*plan).size_bytes());

  std::vector<std::unique_ptr<BoardClaims>> participants(2);
  std::vector<std::shared_ptr<const Plan>> plans(2, plan);  // of each
  std::vector<std::vector<Claim>> in_hand(2);               // of each
  InputClock clock;
  const auto no_time = std::chrono::steady_clock::time_point();
  while (!input.empty()) {
    const std::uint8_t operation = input.byte();
    clock.pass(std::chrono::seconds(operation / 32));
    auto& board = participants[operation / 16 % 2];
    auto& claims = in_hand[operation / 16 % 2];
    auto& own = plans[operation / 16 % 2];
    if (operation % 16 == 0) {
      board.reset();
      claims.clear();
      const std::uint8_t how = input.byte();
      own = how >= 128 ? plan_of(block_count, spans_of(input)) : plan;
      board = join(own, 1 + how % 4, how / 4 * kKiB, clock);
      require(board || !memory.is_board(), "a board of this plan is joined");
    } else if (operation % 16 < 6) {
      scribble(input, whole);
    } else if (board) {
      const std::uint64_t number = input.number(3);
      const auto block = static_cast<std::uint32_t>(number % (block_count + 1));
      switch (operation % 16) {
        case 6:
        case 7:
          if (const auto claim = board->take(number * kKiB)) claims.push_back(*claim);
          break;
        case 8:
          if (claims.empty()) break;
          board->settle(claims.back(), static_cast<Outcome>(number % 3), number);
          claims.pop_back();
          break;
        case 9: board->recover(number % 2 == 0); break;
        case 10: board->report_consumer({number, number * 2, number / 2}); break;
        case 11: board->end_consumer(); break;
        case 12: board->slowest_consumer(no_time + std::chrono::milliseconds(number)); break;
        case 13: {
          const auto dropped = board->take_dropping(number * kKiB);
          require(!dropped || dropped->end() == number * kKiB, "nothing beyond is dropped");
          break;
        }
        case 14: {
          const auto standing = board->standing({0, block});
          require(!standing || standing->unsettled <= block, "not more than was asked for");
          break;
        }
        default:
          require(board->inflight_bytes() > 0, "something may be in flight");
          require(board->window_end(number, {number * kKiB, number, 0}) >= number,
                  "a window reaches what is needed");
          require(board->behind(number * kKiB, number) <= number * kKiB, "behind is before");
          require(board->shared().done_bytes <= plan->total_bytes(), "done is what there is");
      }
    }
    for (const Claim& claim : claims) {
      if (board) check(*board, claim, *own);
    }
  }
  for (std::size_t i = 0; i < participants.size(); ++i) {
    if (!participants[i]) continue;
    for (const Claim& claim : in_hand[i]) participants[i]->settle(claim, Outcome::done, 0);
    bring_to_the_end(*participants[i], *plans[i], clock);
  }
  return 0;
}
