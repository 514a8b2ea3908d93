// read_parts: what the threads of a tensor_reader know of the parts that were added, and how one of
// them, or a piece of it, is read. Internal to part_queue and tensor_reader, whose mutex guards all
// but AddedPart.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/byte_range.h"
#include "plan/byte_runs.h"
#include "reader/piece_reader.h"
#include "reader/tensor_reader.h"

namespace shardahead {

// What does not change any more once it has been added.
struct AddedPart {
  std::size_t file = 0;
  std::uint64_t offset = 0;
  std::uint64_t length_bytes = 0;
  std::vector<std::uint64_t> lengths_bytes;
  std::optional<ByteRuns> runs;  // of one tensor, where its bytes do not adjoin
  bool header = false;
};

struct PartState : AddedPart {
  bool allotted = false;
  bool taken = false;
  std::uint64_t begun_bytes = 0;  // of length_bytes, have been given to threads
  std::uint32_t running = 0;      // threads
  TakenPart result;

  [[nodiscard]] bool begun() const { return header ? allotted : begun_bytes == length_bytes; }
  [[nodiscard]] bool settled() const { return begun() && running == 0; }
  [[nodiscard]] std::uint64_t memory_bytes() const {
    return header ? 0 : TensorMemory::needed_bytes(lengths_bytes);
  }
  // Of several errors the one at the lowest offset counts. What follows it is not begun.
  void fail(IoError error) noexcept;
};

struct Piece {
  PartState* part = nullptr;
  std::shared_ptr<TensorMemory> memory;
  ByteRange range;      // of the part's bytes, without gaps
  bool advises = true;  // see PieceReader::read
};

// Whatever it meets, there is a result: someone may wait for it.
PieceResult read_piece(PieceReader& reader, const Piece& piece) noexcept;
// All of a part, without any thread, lock or state that others have, for a forked child.
TakenPart read_alone(const PieceReader& reader, const AddedPart& part);

}  // namespace shardahead
