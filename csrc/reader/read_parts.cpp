#include "reader/read_parts.h"

#include <exception>
#include <utility>

namespace shardahead {
namespace {

PieceResult try_read(PieceReader& reader, const Piece& piece) {
  const AddedPart& part = *piece.part;  // and no more of it: the mutex is not locked
  if (part.header) return reader.read_header(part.file);
  std::byte* const to = piece.memory->landing() + piece.range.offset;
  if (part.runs) return reader.read_runs(part.file, part.offset, *part.runs, piece.range, to);
  if (part.lengths_bytes.size() == 1) {
    return reader.read(part.file, {part.offset + piece.range.offset, piece.range.length}, to,
                       piece.advises);
  }
  PieceResult result =
      reader.read_each(part.file, part.offset, part.lengths_bytes, to, piece.advises);
  piece.memory->spread();
  return result;
}

std::uint64_t first_byte(const Piece& piece) {
  const AddedPart& part = *piece.part;
  if (!part.runs) return part.offset + piece.range.offset;
  return part.offset + part.runs->offset_of(piece.range.offset / part.runs->run_bytes());
}

}  // namespace

void PartState::fail(IoError error) noexcept {
  begun_bytes = length_bytes;  // what follows is of no use to anyone
  if (result.error && result.error->offset <= error.offset) return;
  result.readable_bytes = runs ? 0 : error.offset - offset;
  result.error = std::move(error);
}

PieceResult read_piece(PieceReader& reader, const Piece& piece) noexcept {
  try {
    return try_read(reader, piece);
  } catch (...) {
    PieceResult result;
    result.error = caught_error("pread", reader.path(piece.part->file), first_byte(piece));
    return result;
  }
}

TakenPart read_alone(const PieceReader& reader, const AddedPart& part) {
  PartState own;
  static_cast<AddedPart&>(own) = part;
  PieceReader alone(reader, PieceReader::Alone{});
  if (own.header) {
    PieceResult result = alone.read_header(own.file);
    own.result = {std::move(result.header), 0, result.file_bytes, std::move(result.error)};
    return std::move(own.result);
  }
  auto memory = std::make_shared<TensorMemory>(own.lengths_bytes);
  PieceResult result =
      own.runs ? alone.read_runs(own.file, own.offset, *own.runs, {0, own.length_bytes},
                                 memory->landing())
               : alone.read_each(own.file, own.offset, own.lengths_bytes, memory->landing());
  memory->spread();
  own.result.memory = std::move(memory);
  own.result.readable_bytes = own.length_bytes;
  own.result.file_bytes = result.file_bytes;
  if (result.error) own.fail(std::move(*result.error));
  return std::move(own.result);
}

}  // namespace shardahead
