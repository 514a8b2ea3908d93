"""What a rank wants of each tensor: all of it, or its tensor-parallel slice; and of the files what
all ranks of the node want together. Pure arithmetic.

Imports nothing but the standard library: the ranks of every method use it, in any environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

GIB = 2**30
#: At which wanted bytes are counted: less than a request of a network filesystem is worth.
GRAIN_BYTES = 64 * 2**10


@dataclass(frozen=True)
class Wanted:
    """One tensor, and the dimension along which the ranks share it; None: each takes all of it.

    `offset`: where in its file it begins.
    """

    shape: tuple[int, ...]
    item_bytes: int
    dim: int | None = None
    offset: int = 0

    def bounds(self, rank: int, size: int) -> tuple[int, int]:
        """Where this rank's slice begins and ends along `dim`."""
        length = self.shape[self.dim] if self.dim is not None else 0
        return rank * length // size, (rank + 1) * length // size

    def part_bytes(self, rank: int, size: int) -> int:
        """Bytes of this rank's part."""
        whole = prod(self.shape) * self.item_bytes
        if self.dim is None:
            return whole
        first, last = self.bounds(rank, size)
        return whole // self.shape[self.dim] * (last - first)

    def ranges(self, rank: int, size: int) -> list[tuple[int, int]]:
        """Where in its file this rank's part lies, as begin and end of each run."""
        run = prod(self.shape[(self.dim or 0) + 1 :]) * self.item_bytes
        if self.dim is None:
            return [(self.offset, self.offset + prod(self.shape) * self.item_bytes)]
        first, last = self.bounds(rank, size)
        pitch = self.shape[self.dim] * run
        rows = range(prod(self.shape[: self.dim]))
        begins = (self.offset + row * pitch for row in rows)
        return [(begin + first * run, begin + last * run) for begin in begins]


def sliced(tensors: dict[str, Wanted], size: int) -> dict[str, Wanted]:
    """The same tensors shared by `size` ranks: matrices alternately along dimension 0 and 1, as
    column- and row-parallel layers are, everything else whole in each rank."""
    found: dict[str, Wanted] = {}
    dim = 0
    for name, tensor in tensors.items():
        fits = len(tensor.shape) == 2 and tensor.shape[dim] >= size
        used = dim if fits else None
        found[name] = Wanted(tensor.shape, tensor.item_bytes, used, tensor.offset)
        dim = 1 - dim if fits else dim
    return found


def of_experts(tensors: dict[str, Wanted], count: int) -> dict[str, Wanted]:
    """Those of the experts with numbers below `count`, and nothing else."""
    numbers = {name: re.search(r"\.experts\.(\d+)\.", name) for name in tensors}
    return {n: tensors[n] for n, found in numbers.items() if found and int(found[1]) < count}


def part_bytes(tensors: Iterable[Wanted], rank: int, size: int) -> int:
    """Bytes of all parts of one rank."""
    return sum(tensor.part_bytes(rank, size) for tensor in tensors)


def union_bytes(tensors: Iterable[Wanted], ranks: Iterable[int], size: int, file_bytes: int) -> int:
    """Bytes of one file of which some rank wants a part, in whole grains."""
    wanted = bytearray(-(-file_bytes // GRAIN_BYTES))
    numbers = list(ranks)
    for tensor in tensors:
        for rank in numbers:
            for begin, end in tensor.ranges(rank, size):
                first, last = begin // GRAIN_BYTES, -(-end // GRAIN_BYTES)
                wanted[first:last] = b"\1" * (last - first)
    cut = GRAIN_BYTES - file_bytes % GRAIN_BYTES if wanted[-1:] == b"\1" else GRAIN_BYTES
    return sum(wanted) * GRAIN_BYTES - cut % GRAIN_BYTES
