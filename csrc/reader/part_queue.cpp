#include "reader/part_queue.h"

#include <algorithm>
#include <new>
#include <utility>

namespace shardahead {

PartQueue::Index PartQueue::add(PartState part) {
  parts_.push_back(std::move(part));
  return parts_.size() - 1;
}

// The first part of which something is left to begin.
PartState* PartQueue::next_part() {
  if (waited_for_ != nullptr && !waited_for_->begun()) return waited_for_;
  while (first_unbegun_ < parts_.size() && parts_[first_unbegun_].begun()) ++first_unbegun_;
  if (first_unbegun_ == parts_.size()) return nullptr;
  PartState& part = parts_[first_unbegun_];
  const bool fits = held_bytes_ == 0 || held_bytes_ + part.memory_bytes() <= ahead_bytes_;
  return part.allotted || part.header || fits ? &part : nullptr;
}

std::optional<Piece> PartQueue::next_piece(Runtime::Time now, bool& failed) {
  failed = false;
  for (PartState* part = next_part(); part != nullptr; part = next_part()) {
    const std::uint64_t length_bytes = part->header ? 0 : next_bytes(*part);
    const bool tells = tells_of_readers(*part, length_bytes);
    if (tells && !trial_.may_begin()) return std::nullopt;
    const Allotted allotted = allot(*part);
    if (allotted == Allotted::not_now) return std::nullopt;
    if (allotted == Allotted::failed) {
      failed = true;
      continue;
    }
    Piece piece{part, part->result.memory, {part->begun_bytes, length_bytes}};
    ++part->running;
    if (part->header) return piece;
    part->begun_bytes += length_bytes;
    if (tells) {
      piece.advises = trial_.advises();
      trial_.begun(now);
    }
    return piece;
  }
  return std::nullopt;
}

// What jumps, from file to file for headers, from run to run for parts of tensors, and what is
// little takes a round trip, and as many at once as there are threads.
bool PartQueue::tells_of_readers(const PartState& part, std::uint64_t length_bytes) {
  return !part.header && !part.runs && length_bytes >= kLeastTellingBytes;
}

std::uint64_t PartQueue::next_bytes(const PartState& part) const {
  const std::uint64_t left = part.length_bytes - part.begun_bytes;
  // Small tensors are spread when all of them are there: at once.
  if (part.lengths_bytes.size() > 1) return left;
  // Runs that are far from each other are several reads, which threads share.
  const std::uint64_t share =
      part.runs ? part.runs->share_bytes(piece_bytes_, reader_.gap_bytes()) : trial_.piece_bytes();
  return std::min(left, share);
}

// Failed where there is nothing to read, or no memory for it. Memory that is not there ahead may be
// there once the consumer, which comes for the part then, has let go of what it holds now.
PartQueue::Allotted PartQueue::allot(PartState& part) {
  if (part.allotted) return Allotted::yes;
  try {
    if (!part.header) part.result.memory = std::make_shared<TensorMemory>(part.lengths_bytes);
  } catch (const std::bad_alloc&) {
    if (&part != waited_for_) return Allotted::not_now;
    part.allotted = true;
    part.fail(caught_error("mmap", reader_.path(part.file), part.offset));
    return Allotted::failed;
  }
  part.allotted = true;
  if (part.header) return Allotted::yes;
  part.result.readable_bytes = part.length_bytes;
  held_bytes_ += part.memory_bytes();
  return part.length_bytes > 0 ? Allotted::yes : Allotted::failed;
}

void PartQueue::settle(const Piece& piece, PieceResult result, Runtime::Time now) {
  PartState& part = *piece.part;
  --part.running;
  if (tells_of_readers(part, piece.range.length)) trial_.ended(result.read_bytes, now);
  read_bytes_ += result.read_bytes;
  if (result.file_bytes > 0) part.result.file_bytes = result.file_bytes;
  if (part.header) {
    part.result.memory = std::move(result.header);
    part.result.readable_bytes = part.result.memory ? part.result.memory->length_bytes(0) : 0;
    part.result.error = std::move(result.error);
  } else if (result.error) {
    part.fail(std::move(*result.error));
  }
}

TakenPart PartQueue::take(PartState& part) {
  part.taken = true;
  held_bytes_ -= part.result.memory && !part.header ? part.memory_bytes() : 0;
  return std::move(part.result);
}

}  // namespace shardahead
