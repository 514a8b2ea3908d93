"""Where the tensors of a safetensors checkpoint lie, for whoever reads or prefetches them by other
means. Reads headers only, and needs neither torch nor safetensors.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardahead.checkpoint.asked_names import Names
from shardahead.checkpoint.asked_parts import AskedParts, Slices
from shardahead.checkpoint.safetensors_header import spans_of
from shardahead.checkpoint.shards import SAFETENSORS_SUFFIXES, Files, resolve_checkpoint
from shardahead.checkpoint.wanted import Wanted
from shardahead.weights.shard_reading import read_headers


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as its file has it: `length` bytes from `offset` in `file`, row-major, of the shape
    and dtype that the file says, "BF16".

    `ranges`: (offset, length) of what is wanted of it, ascending and apart from each other: all of
    it, or what holds the part that was asked for. Gaps in a part below 64 KiB are within, as the
    iterators prefetch it. Empty where no byte is wanted.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    offset: int
    length: int
    ranges: tuple[tuple[int, int], ...]


def tensor_ranges(
    files: Files,
    *,
    names: Names | None = None,
    slices: Slices | None = None,
    strict: bool = True,
) -> list[StoredTensor]:
    """Which tensors a checkpoint holds, and where: shard after shard, by offset in each, those that
    `safetensors_weights_iterator` would give for the same arguments. Reads the headers, and nothing
    else.

    files: as for `prefetch_files`; only safetensors files. Where an index is given or found, a
        tensor is that of the shard that it names, and of no other.
    names, slices, strict: as for `safetensors_weights_iterator`.

    The ranges, by file, are `spans` of `prefetch_files`: then just these bytes are brought in.

    Raises as `safetensors_weights_iterator` does, and OSError with errno and filename where a file
    cannot be read.
    """
    parts = AskedParts(slices)
    checkpoint = resolve_checkpoint(files, SAFETENSORS_SUFFIXES)
    wants = Wanted(checkpoint, names, strict=strict, sliced=parts.listed)
    found: list[StoredTensor] = []
    for index, header in enumerate(read_headers(checkpoint.shards)):
        path = checkpoint.shards[index].path
        wants.require(index, {tensor.name for tensor in header.tensors})
        wanted = [tensor for tensor in header.tensors if wants(index, tensor.name)]
        found += [
            StoredTensor(
                tensor.name,
                tensor.dtype,
                tensor.shape,
                path,
                tensor.offset,
                tensor.length,
                tuple(spans_of([part])),
            )
            for tensor, part in zip(wanted, parts.narrowed(wanted), strict=True)
        ]
    wants.all_seen()
    return found
