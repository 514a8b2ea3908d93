"""Into which blocks a replica is cut: the unit in which it is written, marked and digested. Pure;
any thread.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class Block:
    """`length` bytes from `offset` on of file number `file`; `number` is that of the block."""

    number: int
    file: int
    offset: int
    length: int


class Layout:
    """The blocks of files of these sizes, file after file, in the order in which they are consumed.
    A file without bytes has no block.
    """

    def __init__(self, sizes_bytes: Sequence[int], block_bytes: int = BLOCK_BYTES) -> None:
        self.block_bytes = block_bytes
        self.sizes_bytes: tuple[int, ...] = tuple(sizes_bytes)
        counts = [-(-size // block_bytes) for size in self.sizes_bytes]
        #: Of each file the number of its first block; one more: how many there are in all.
        self._first: list[int] = [0, *accumulate(counts)]

    def __len__(self) -> int:
        return self._first[-1]

    @property
    def size_bytes(self) -> int:
        return sum(self.sizes_bytes)

    def block(self, number: int) -> Block:
        """Raises IndexError where there is no such block."""
        if not 0 <= number < len(self):
            raise IndexError(f"no block {number} of {len(self)}")
        file = bisect_right(self._first, number) - 1
        offset = (number - self._first[file]) * self.block_bytes
        length = min(self.block_bytes, self.sizes_bytes[file] - offset)
        return Block(number, file, offset, length)

    def under(self, file: int, offset: int, length: int) -> range:
        """The numbers of the blocks in which these bytes of a file lie."""
        if not length:
            return range(0)
        first = self._first[file]
        last = (offset + length - 1) // self.block_bytes
        return range(first + offset // self.block_bytes, first + last + 1)

    def of_file(self, file: int) -> range:
        return range(self._first[file], self._first[file + 1])
