"""What a rank wants of each tensor: all of it, or its tensor-parallel slice. Pure arithmetic.

Imports nothing but the standard library: the ranks of every method use it, in any environment.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

GIB = 2**30


@dataclass(frozen=True)
class Wanted:
    """One tensor, and the dimension along which the ranks share it; None: each takes all of it."""

    shape: tuple[int, ...]
    item_bytes: int
    dim: int | None = None

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


def sliced(tensors: dict[str, Wanted], size: int) -> dict[str, Wanted]:
    """The same tensors shared by `size` ranks: matrices alternately along dimension 0 and 1, as
    column- and row-parallel layers are, everything else whole in each rank."""
    found: dict[str, Wanted] = {}
    dim = 0
    for name, tensor in tensors.items():
        fits = len(tensor.shape) == 2 and tensor.shape[dim] >= size
        found[name] = Wanted(tensor.shape, tensor.item_bytes, dim if fits else None)
        dim = 1 - dim if fits else dim
    return found


def part_bytes(tensors: Iterable[Wanted], rank: int, size: int) -> int:
    """Bytes of all parts of one rank."""
    return sum(tensor.part_bytes(rank, size) for tensor in tensors)
