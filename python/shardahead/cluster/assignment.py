"""Which node of a cluster reads which block of a checkpoint, and who is to be sent it. Pure: what
is decided here, every node decides alike from the same order of events. One thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence


class Assignment:
    """Block i belongs to node i mod `nodes`; those of a node that is gone are dealt to the nodes
    that are left, as a hash has it, and so on with these: by turns, what two lost nodes had would
    fall to few.
    """

    def __init__(self, blocks: int, nodes: int) -> None:
        if blocks < 0 or nodes < 1:
            raise ValueError(f"{blocks} blocks, {nodes} nodes")
        self.blocks = blocks
        self.nodes = nodes
        #: The nodes that are gone, in the order in which all have learned it.
        self.gone: list[int] = []
        self._left: list[list[int]] = []  # after each of `gone`

    def is_gone(self, node: int) -> bool:
        return node in self.gone

    def lose(self, node: int) -> bool:
        """The node is gone. False where it is known already, or is the last one: that one reads
        what is left.
        """
        left = self.left()
        if node not in left or len(left) == 1:
            return False
        self.gone.append(node)
        self._left.append([each for each in left if each != node])
        return True

    def left(self) -> Sequence[int]:
        """The nodes that are not gone."""
        return self._left[-1] if self._left else range(self.nodes)

    def owner(self, block: int) -> int:
        """Of the nodes that are left the one that reads this block."""
        owner = block % self.nodes
        for gone, left in zip(self.gone, self._left, strict=True):
            if owner == gone:
                owner = left[_mixed(block, gone) % len(left)]
        return owner

    def was_of(self, node: int) -> range:
        """The blocks that belonged to it before any node was gone."""
        return range(node, self.blocks, self.nodes)

    def dealt_to(self, node: int, blocks: Iterator[int]) -> list[int]:
        """Of these blocks those that are its own because others are gone."""
        return [block for block in blocks if block % self.nodes != node == self.owner(block)]

    def owned(self, node: int, blocks: Iterator[int] | None = None) -> Iterator[int]:
        """Its blocks in the order in which they are consumed; of `blocks`, where they are given."""
        for block in range(self.blocks) if blocks is None else blocks:
            if self.owner(block) == node:
                yield block


def _mixed(block: int, node: int) -> int:
    """The same on every node, and unlike that of the next block."""
    found = (block + 1) * 0x9E3779B97F4A7C15 + (node + 1) * 0xD1B54A32D192ED03 & (1 << 64) - 1
    found = (found ^ found >> 31) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
    return found >> 33
