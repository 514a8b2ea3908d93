"""The blocks of the replica that is being made, as they are sent to other nodes and come from them:
what of a message about them is believed, and their bytes. Any thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from shardahead import _core
from shardahead.cluster.wire import BLOCK, Header, WireError
from shardahead.replica.blocks_there import ABSENT, BlocksThere, open_blocks
from shardahead.replica.layout import Layout


class WrongBlockError(Exception):
    """What came is not what it was said to be."""


class BlocksSent:
    """Of the replica in `folder`, whose files are `targets`. It may get its name, and so another
    folder, while blocks of it are sent. Raises ValueError where there are none, OSError as open().
    """

    def __init__(self, folder: str, targets: Sequence[str], layout: Layout, version: str) -> None:
        found = open_blocks(folder, layout, version, write=True)
        if found is None:
            raise ValueError("there are no blocks to exchange")
        self._there: BlocksThere = found
        self._layout = layout
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._names = [os.path.relpath(target, folder) for target in targets]
        self._descriptors: dict[int, int] = {}
        self._opening = threading.Lock()

    def absent(self) -> list[int]:
        return self._there.absent()

    def is_there(self, number: int) -> bool:
        return self._there.state(number) != ABSENT

    def require(self, number: int) -> None:
        """Raises WireError where there is no such block."""
        if not 0 <= number < len(self._layout):
            raise WireError(f"there is no block {number}")

    def length(self, header: Header) -> int:
        """Of the block that is said to follow. Raises WireError where none can be like that."""
        self.require(header.block)
        block = self._layout.block(header.block)
        if header.length != block.length:
            raise WireError(f"block {block.number} has {block.length} bytes")
        return block.length

    def to_send(self, number: int) -> tuple[Header, int, int]:
        """What is said of a block that is there, and where its bytes lie: a descriptor, and from
        which offset on.
        """
        block = self._layout.block(number)
        header = Header(BLOCK, number, block.length, self._there.digest(number))
        return header, self._descriptor(block.file), block.offset

    def keep(self, header: Header, content: memoryview) -> int:
        """What came of a block, where it is not there already: how many bytes were written. Not
        before it is known to be right: others load from the replica. Raises WrongBlockError.
        """
        block = self._layout.block(header.block)
        if self.is_there(block.number):
            return 0
        if _core.digest_of(content) != header.digest:
            raise WrongBlockError(block.number)
        descriptor = self._descriptor(block.file)
        at = block.offset
        while content:
            written = os.pwrite(descriptor, content, at)
            content, at = content[written:], at + written
        self._there.note(block.number, header.digest)
        return block.length

    def _descriptor(self, file: int) -> int:
        with self._opening:
            if file not in self._descriptors:
                flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                self._descriptors[file] = os.open(self._names[file], flags, dir_fd=self._folder)
            return self._descriptors[file]
