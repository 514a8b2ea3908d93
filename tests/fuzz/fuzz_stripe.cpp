// Any bytes as the layout of a file on Lustre, after 8 bytes that say how large the file is: what
// comes out of it is a layout that there can be, and blocks that a plan can have.
#include <algorithm>
#include <vector>

#include "fuzz_input.h"
#include "node/stripe.h"
#include "plan/plan.h"

using namespace shardahead;
using fuzzing::FuzzInput;
using fuzzing::require;

int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  constexpr std::size_t kSizeBytes = 8;
  const std::uint64_t file_bytes = FuzzInput(bytes, size).number();
  const std::size_t skipped = std::min(size, kSizeBytes);
  // An allocation of its own, so that a sanitizer sees a byte read past its end.
  const auto* const begin = reinterpret_cast<const std::byte*>(bytes);
  const std::vector<std::byte> layout(begin + skipped, begin + size);
  const auto stripe = parse_stripe(layout, file_bytes);
  if (!stripe) return 0;
  require(layout.size() >= 32, "a layout has its header");
  require(stripe->size_bytes > 0 && stripe->count > 0, "a stripe has bytes and objects");
  const std::uint64_t block_bytes = striped_block_bytes(16 * kMiB, *stripe);
  require(block_bytes >= kMinBlockBytes && block_bytes <= kMaxStripedBlockBytes,
          "a plan can have such blocks");
  return 0;
}
