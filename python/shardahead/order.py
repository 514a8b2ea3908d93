"""In which order the tensors of a shard are handed out, and how far it is consumed then. Pure.

"offset" is the order in the file, "name" that of safe_open(...).keys(), which serving engines
follow. The two differ where a file holds several dtypes: the library lays them out one after the
other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from shardahead.safetensors_header import TensorRange

ORDERS = ("offset", "name")
# What may still be to come before the place up to which a shard counts as consumed: scales and
# other scalars lie at its beginning, and one of them comes after each matrix.
_LEFT_BEHIND_SHARE = 64


def in_order(tensors: Sequence[TensorRange], order: str) -> tuple[TensorRange, ...]:
    """Tensors of ascending offset in `order`, one of ORDERS."""
    if order == "name":
        return tuple(sorted(tensors, key=lambda tensor: tensor.name))
    return tuple(tensors)


def consumed_offsets(tensors: Sequence[TensorRange]) -> list[int]:
    """After each of `tensors`, in the order in which they are handed out: the offset before which
    the shard is consumed. Where that is not the order in the file, nothing that is to come lies
    before it, but for the smallest tensors, a 64th of the bytes in all: they may be read again.
    """
    if all(a.offset <= b.offset for a, b in pairwise(tensors)):
        return [tensor.end for tensor in tensors]
    left_behind_bytes = sum(tensor.length for tensor in tensors) // _LEFT_BEHIND_SHARE
    counted = set(range(len(tensors)))
    for index in sorted(counted, key=lambda index: tensors[index].length):
        left_behind_bytes -= tensors[index].length
        if left_behind_bytes < 0:
            break
        counted.remove(index)
    offsets = [0] * len(tensors)
    first_to_come = max(tensor.end for tensor in tensors)
    for index in reversed(range(len(tensors))):
        offsets[index] = first_to_come
        if index in counted:
            first_to_come = min(first_to_come, tensors[index].offset)
    return offsets
