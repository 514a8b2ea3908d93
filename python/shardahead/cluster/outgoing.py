"""What a node is to say next to one other node. Pure; one thread at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from shardahead.cluster.wire import BLOCK, END, HAVE, NOT_HERE, READ_ALL, TAKEN, WANT

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
        self._words: deque[Said] = deque()
        self._end_said = False
        self._owes_taken = False
        #: The peer has all that it was sent: it was told the end, and has said so.
        self.taken = False

    def ask(self, block: int) -> None:
        """The peer is to send this one, which was another's."""
        self._words.append(Said(WANT, block))

    def have(self, block: int) -> None:
        """The peer need not send this one."""
        self._words.append(Said(HAVE, block))

    def has_read_all(self) -> None:
        """This node, what it is to read."""
        self._words.append(Said(READ_ALL))

    def want(self, block: int) -> None:
        """The peer lacks it."""
        self._waiting.append(block)

    def drop(self, block: int) -> None:
        """The peer has it."""
        with suppress(ValueError):
            self._waiting.remove(block)

    def take(self) -> None:
        """All that the peer has sent, up to its END, is kept."""
        self._owes_taken = True

    def next(self, *, has_tried: Callable[[int], bool], finishing: bool) -> Said | None:
        """None while there is nothing to say. `has_tried`: whether this node was to read a block,
        and has done so; `finishing`: it has all.
        """
        if self._owes_taken:
            self._owes_taken = False
            return Said(TAKEN)
        if self._words:
            return self._words.popleft()
        reach = range(min(_REACH, len(self._waiting)))
        for kind, is_so in ((BLOCK, self._is_there), (NOT_HERE, has_tried)):
            for place in reach:
                block = self._waiting[place]
                if is_so(block):
                    del self._waiting[place]
                    return Said(kind, block)
        if finishing and not self._waiting and not self._end_said:
            self._end_said = True
            return Said(END)
        return None
