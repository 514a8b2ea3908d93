// tensor_memory: where tensors that adjoin in a file come to lie.
#include "reader/tensor_memory.h"

#include <doctest/doctest.h>

#include <random>

#include "base/byte_range.h"

using namespace shardahead;

TEST_SUITE_BEGIN("tensor_memory");

TEST_CASE("each tensor has its bytes, at a multiple of 64") {
  std::mt19937_64 random(1);
  for (int round = 0; round < 200; ++round) {
    CAPTURE(round);
    std::vector<std::uint64_t> lengths_bytes(1 + random() % 40);
    std::uint64_t total_bytes = 0;
    for (std::uint64_t& length : lengths_bytes) {
      length = random() % (round % 2 == 0 ? 70 : 5000);
      total_bytes += length;
    }
    if (total_bytes == 0) continue;
    TensorMemory memory(lengths_bytes);
    REQUIRE(memory.count() == lengths_bytes.size());
    for (std::uint64_t i = 0; i < total_bytes; ++i) memory.landing()[i] = std::byte(i % 251);
    memory.spread();
    std::uint64_t at = 0;
    bool same = true;
    for (std::size_t i = 0; i < lengths_bytes.size(); ++i) {
      CHECK(reinterpret_cast<std::uintptr_t>(memory.tensor(i)) % kTensorAlignBytes == 0);
      CHECK(memory.length_bytes(i) == lengths_bytes[i]);
      for (std::uint64_t j = 0; j < lengths_bytes[i]; ++j) {
        same &= memory.tensor(i)[j] == std::byte((at + j) % 251);
      }
      at += lengths_bytes[i];
    }
    CHECK(same);
    CHECK(TensorMemory::needed_bytes(lengths_bytes) >= total_bytes);
  }
}

TEST_CASE("one tensor is read to where it stays") {
  TensorMemory memory({5 * kMiB + 1});
  CHECK(memory.landing() == memory.tensor(0));
  CHECK(TensorMemory::needed_bytes({5 * kMiB + 1}) == 5 * kMiB + 1);
}

TEST_CASE("nothing takes nothing") {
  CHECK(TensorMemory({0, 0}).landing() == nullptr);
  CHECK(TensorMemory::needed_bytes({}) == 0);
}

TEST_CASE("more than there is, is an exception") {
  CHECK_THROWS_AS(TensorMemory({1ULL << 60U}), std::bad_alloc);
}

TEST_SUITE_END();
