"""What a node is to say next to one other node. Pure; one thread at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from shardahead.cluster.wire import BLOCK, END, NOT_HERE, TAKEN, WANT

#: Ahead of the first block that is not there yet, one that is there may be sent.
_REACH = 16


class Said(NamedTuple):
    """A kind of wire.py, and of which block."""

    kind: int
    block: int = 0


class Outgoing:
    """To one peer. `lacking`: the blocks of this node's that it has not, in order; `is_there` says
    of a block whether this node has it.
    """

    def __init__(self, lacking: Iterable[int], is_there: Callable[[int], bool]) -> None:
        self._waiting = deque(lacking)
        self._is_there = is_there
        self._asks: deque[int] = deque()
        self._end_said = False
        self._owes_taken = False
        #: The peer has all that it was sent: it was told the end, and has said so.
        self.taken = False

    def ask(self, block: int) -> None:
        """The peer is to send this one, which was another's."""
        self._asks.append(block)

    def want(self, block: int) -> None:
        """The peer lacks it."""
        self._waiting.append(block)

    def take(self) -> None:
        """All that the peer has sent, up to its END, is kept."""
        self._owes_taken = True

    def next(self, *, read_all: bool, finishing: bool) -> Said | None:
        """None while there is nothing to say. `read_all`: this node has read all that it is to
        read; `finishing`: it has all.
        """
        if self._owes_taken:
            self._owes_taken = False
            return Said(TAKEN)
        if self._asks:
            return Said(WANT, self._asks.popleft())
        for place in range(min(_REACH, len(self._waiting))):
            block = self._waiting[place]
            if self._is_there(block):
                del self._waiting[place]
                return Said(BLOCK, block)
        if self._waiting:
            return Said(NOT_HERE, self._waiting.popleft()) if read_all else None
        if finishing and not self._end_said:
            self._end_said = True
            return Said(END)
        return None
