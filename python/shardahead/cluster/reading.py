"""Which of the blocks that it lacks a node is to read now: its own, those of nodes that are gone,
and at the end those that it reads sooner by itself than others send them. Pure: it is told what has
happened, and the time. One thread at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardahead.cluster.assignment import Assignment

#: Nothing has come for so long, whatever the others think who is to read what.
PATIENCE_SECONDS = 8.0
#: Others' blocks are read where that is sooner by so much, and so many times.
_GAIN_SECONDS = 0.5
_GAIN = 1.5
#: So many times where some still read, or did not when this node did: a storage that all share
#: would have been slower then.
_DOUBT = 2.5
#: So long what comes is watched before that is decided.
_WATCHED_SECONDS = 0.5
#: Read at once of what others were to send: what takes about so long.
_TAKE_SECONDS = 0.5


class Reading:
    """Of one node, whose number is `node` once it has one."""

    def __init__(self, assignment: Assignment) -> None:
        self.node: int | None = None
        self.over = False  # all is this node's to read
        self._assignment = assignment
        self._mine: set[int] = set()  # that another was to send, and cannot
        self._gone = 0
        self._idle: set[int] = set()
        self._met: set[int] = set()
        self._rate: float | None = None  # of the blocks that were read last, a second
        self._is_sure = False  # all others read, or could have read, at that time
        self._began: float | None = None  # with those that are being read
        self._read = 0
        self._taken = False  # these are others'
        #: Since when what comes is watched, and how much others were to send then.
        self._watched: tuple[float, int] | None = None
        self._absent = -1
        self._since = 0.0  # when that changed

    @property
    def gone(self) -> int:
        """So many nodes are known to be gone."""
        return self._gone

    def lose(self, node: int) -> bool:
        if not self._assignment.lose(node):
            return False
        self._gone += 1
        self._idle.clear()  # what it was to read is others' now
        return True

    def has_read_all(self, node: int) -> None:
        """What it is to read: what has not come from it is on its way."""
        self._idle.add(node)

    def meet(self, node: int, now: float) -> None:
        """It is here, and reads from now on."""
        self._met.add(node)
        if self._have_all_come():
            self._watched = None  # what came before tells nothing
            if self._began is not None:
                self._began, self._read, self._is_sure = now, 0, True

    def _have_all_come(self) -> bool:
        """Of those that are not gone."""
        return self._met.union([self.node]).issuperset(self._assignment.left())

    def has_copied(self) -> None:
        """This node has read one of those that it was given."""
        self._read += 1

    def has_lost(self, block: int) -> None:
        """Who was to send it cannot."""
        self._mine.add(block)

    def is_own(self, block: int) -> bool:
        """Nobody else is to read it."""
        if self.over or self.node is None or block in self._mine:
            return True
        return self._assignment.owner(block) == self.node

    def is_to_read(self, block: int) -> bool:
        """Of those that were given last: it is not another's by now."""
        return self._taken or self.is_own(block)

    def to_read(self, absent: Sequence[int], now: float) -> list[int]:
        """Of these blocks, when those that were given before are read."""
        self._note_rate(now)
        if len(absent) != self._absent:
            self._absent, self._since = len(absent), now
        self._taken = False
        chosen = [block for block in absent if self.is_own(block)]
        if chosen:
            self._watched = now, len(absent) - len(chosen)
        elif chosen := self._to_take(absent, now):
            self._taken = True
        if chosen:
            self._began, self._read, self._is_sure = now, 0, self._have_all_come()
        return chosen

    def has_waited_in_vain(self, now: float) -> bool:
        """With nothing to read."""
        return self._began is None and now - self._since > PATIENCE_SECONDS

    def _note_rate(self, now: float) -> None:
        if self._began is not None:
            self._rate = self._read / max(1e-6, now - self._began)
            self._began = None

    def _to_take(self, absent: Sequence[int], now: float) -> list[int]:
        """From the end of what others send: they begin at the other one."""
        if not self._rate or not self._have_all_come():
            return []
        if self._watched is None:
            self._watched = now, len(absent)
        since, were = self._watched
        seconds = now - since
        came = were - len(absent)
        if seconds < _WATCHED_SECONDS or came <= 0:  # whoever sends nothing at all may be gone
            return []
        waited = len(absent) * seconds / came
        needed = len(absent) / self._rate + _GAIN_SECONDS
        owners = {block: self._assignment.owner(block) for block in absent}
        is_sure = self._is_sure and self._idle.issuperset(owners.values())
        if waited < needed * (_GAIN if is_sure else _DOUBT):
            return []
        # What another still reads for all is not taken: that comes when it has it.
        idle = [block for block in absent if owners[block] in self._idle]
        # The next one of each is on its way.
        idle = idle[len({owners[block] for block in idle}) :]
        idle = idle[-max(1, int(self._rate * _TAKE_SECONDS)) :]
        self._watched = since, were - len(idle)
        return idle
