// part_queue: the parts that were added to a tensor_reader, in their order: which piece of them is
// read next, and whether now, what became of it, and how much is ahead of whoever takes them. It
// reads nothing and has no lock. Internal to tensor_reader.cpp, one thread at a time.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "reader/parallel_trial.h"
#include "reader/read_parts.h"

namespace shardahead {

class PartQueue {
 public:
  using Index = std::size_t;

  // `reader` tells what the files are called.
  PartQueue(const PieceReader& reader, const TensorReaderOptions& options)
      : reader_(reader),
        ahead_bytes_(options.ahead_bytes),
        piece_bytes_(options.piece_bytes),
        trial_(options.threads, options.piece_bytes) {}

  // None of them moves, or goes, before the queue does.
  Index add(PartState part);
  [[nodiscard]] PartState& at(Index index) { return parts_.at(index); }
  [[nodiscard]] std::size_t size() const noexcept { return parts_.size(); }

  // Someone waits for this one, which is read before all others; or for none.
  void put_first(PartState* part) noexcept { waited_for_ = part; }
  // Nothing where no part has any left to begin, what is ahead is enough, or as many are being read
  // as may be. `failed`: on the way there a part came to its end, for which there was nothing to
  // read, or no memory.
  std::optional<Piece> next_piece(Runtime::Time now, bool& failed);
  void settle(const Piece& piece, PieceResult result, Runtime::Time now);
  TakenPart take(PartState& part);
  // Of all pieces, taken or not.
  [[nodiscard]] std::uint64_t read_bytes() const noexcept { return read_bytes_; }

 private:
  enum class Allotted { yes, failed, not_now };

  static constexpr std::uint64_t kLeastTellingBytes = 64 * kKiB;

  PartState* next_part();
  // Whether the trial has a say in when a piece of such a length is read.
  static bool tells_of_readers(const PartState& part, std::uint64_t length_bytes);
  Allotted allot(PartState& part);
  [[nodiscard]] std::uint64_t next_bytes(const PartState& part) const;

  const PieceReader& reader_;
  const std::uint64_t ahead_bytes_;
  const std::uint64_t piece_bytes_;
  ParallelTrial trial_;
  std::deque<PartState> parts_;
  Index first_unbegun_ = 0;  // no part before it has anything left to begin
  PartState* waited_for_ = nullptr;
  std::uint64_t held_bytes_ = 0;  // allotted and not taken
  std::uint64_t read_bytes_ = 0;
};

}  // namespace shardahead
