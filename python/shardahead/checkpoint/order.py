"""In which order the tensors of a shard are handed out, and how far it is consumed then. Pure.

"offset" is the order in the file, "name" that of safe_open(...).keys(), which serving engines
follow. The two differ where a file holds several dtypes: the library lays them out one after the
other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from shardahead.checkpoint.safetensors_header import TensorRange

# Of the memory budget: what a prefetch is ahead of its consumer where memory is short.
_WINDOW_SHARE = 4


def order_of(order: str, shard_bytes: int, budget_bytes: int | None) -> str:
    """The order for one shard. One that the window cannot hold comes in its own: in any other,
    what has been consumed could not be dropped before the end of the shard.
    """
    fits = budget_bytes is None or shard_bytes * _WINDOW_SHARE <= budget_bytes
    return order if fits else "offset"


def in_order(tensors: Sequence[TensorRange], order: str) -> tuple[TensorRange, ...]:
    """Tensors of ascending offset, in `order`."""
    if order == "name":
        return tuple(sorted(tensors, key=lambda tensor: tensor.name))
    return tuple(tensors)


def consumed_offsets(tensors: Sequence[TensorRange]) -> list[int]:
    """After each of `tensors`, in the order in which they are handed out: the offset before which
    nothing of the shard is still to come.
    """
    if all(a.offset <= b.offset for a, b in pairwise(tensors)):
        return [tensor.end for tensor in tensors]
    offsets = [0] * len(tensors)
    first_to_come = max(tensor.end for tensor in tensors)
    for index in reversed(range(len(tensors))):
        offsets[index] = first_to_come
        first_to_come = min(first_to_come, tensors[index].offset)
    return offsets
