"""The part that one node takes in a job: to whom it is to say what, who is gone, when it may leave.
Pure: it is told what has happened, and the time. One thread at a time.

A node that says nothing, or that sends nothing of what others wait for, is taken for gone: its
blocks are dealt to others. Its connection is not cut: it may only have stood still, or be slow, and
then it is sent what it lacks, and reads no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shardahead.cluster.assignment import Assignment
from shardahead.cluster.lateness import Silence
from shardahead.cluster.outgoing import Outgoing, Said
from shardahead.cluster.wire import BLOCK, END, HAVE, READ_ALL, TAKEN, WANT


class PartTaken:
    """Of node `node`. `is_there` says of a block whether it has it, `absent` which it lacks."""

    def __init__(
        self,
        node: int,
        assignment: Assignment,
        is_there: Callable[[int], bool],
        absent: Callable[[], Sequence[int]],
    ) -> None:
        self.node = node
        self.silence: Silence = Silence()
        self.finishing = False  # this node has all blocks
        self._assignment = assignment
        self._is_there = is_there
        self._absent = absent
        self._outgoing: dict[int, Outgoing] = {}  # to those that are connected
        self._met: set[int] = set()
        self._left: set[int] = set()  # they have said that they have all
        self._broken: set[int] = set()  # their connection
        self._noted: set[int] = set()  # that they are gone
        self._idle: set[int] = set()  # they have read all that they are to read
        self._read_all = False
        self._said_read_all = False

    # ---- what happens ----

    def meet(self, peer: int, lacks: Callable[[int], bool], now: float) -> bool:
        """It is connected. False where it was before: then this is somebody else."""
        if peer in self._met or peer in self._broken:
            return False
        self._met.add(peer)
        self.silence.hear(peer, now)
        own = filter(lacks, self._assignment.was_of(self.node))
        self._outgoing[peer] = Outgoing(own, self._is_there)
        for block in self._assignment.dealt_to(peer, iter(self._absent())):
            self._outgoing[peer].ask(block)
        if self._said_read_all:
            self._outgoing[peer].has_read_all()
        return True

    def hear(self, peer: int, kind: int, block: int) -> None:
        """What it has said, or that a block of it was kept."""
        if kind == END:
            self._left.add(peer)
        elif kind == READ_ALL:
            self._idle.add(peer)
        if (outgoing := self._outgoing.get(peer)) is None:
            return
        if kind == WANT:
            outgoing.want(block)
        elif kind in (BLOCK, HAVE):
            outgoing.drop(block)
        elif kind == END:
            outgoing.take()
        elif kind == TAKEN:
            outgoing.taken = True

    def part_from(self, peer: int) -> None:
        """Its connection is broken."""
        self._outgoing.pop(peer, None)
        self._broken.add(peer)

    def set_read_all(self, read_all: bool, gone: int) -> None:
        """Whether this node has read all that it is to read, as far as `gone` nodes are gone."""
        self._read_all = read_all and gone == len(self._assignment.gone)
        if self._read_all and not self._said_read_all:
            self._said_read_all = True
            for outgoing in self._outgoing.values():
                outgoing.has_read_all()

    def has_read(self, block: int, now: float) -> None:
        """Which is there. Where it is another's, and not read yet, that one is sent it; to the
        others it is said, who need not send it.
        """
        self.silence.has_read(now)
        owner = self._assignment.owner(block)
        if owner == self.node:
            return
        for peer, outgoing in self._outgoing.items():
            if peer == owner and peer not in self._idle:
                outgoing.want(block)
            else:
                outgoing.have(block)

    def lose(self, node: int) -> bool:
        """The roll says that it is gone, this node too. False where that changes nothing."""
        before = list(self._assignment.owned(node, iter(self._absent())))
        if not self._assignment.lose(node):
            return False
        self._read_all = self._said_read_all = False  # it may be dealt something
        self._idle.clear()  # and so may they
        if node in self._left:
            self._outgoing.pop(node, None)
        for block in before:  # what the node had sent, most have
            if (peer := self._outgoing.get(self._assignment.owner(block))) is not None:
                peer.ask(block)
        return True

    # ---- what follows ----

    def newly_lost(self, now: float, is_quiet: Callable[[int], bool]) -> list[int]:
        """Who is gone, as this node finds: each is given once. `is_quiet`: whether nothing of a
        node waits unread, which this node had no time for.
        """
        self.silence.set_idle(now, idle=self._read_all)
        lost = []
        for peer in self._assignment.left():
            if peer == self.node or peer in self._noted:
                continue
            broken = peer in self._broken and peer not in self._left
            silent = self.silence.is_silent(peer, now) and is_quiet(peer)
            late = self.silence.is_late(peer, now) and self._owes(peer)
            if broken or silent or late or self.silence.is_absent(peer, now):
                self._noted.add(peer)
                lost.append(peer)
        return lost

    def next(self, peer: int) -> Said | None:
        """What is to be said to it, if anything."""
        if (outgoing := self._outgoing.get(peer)) is None:
            return None
        return outgoing.next(has_tried=self._has_tried, finishing=self.finishing)

    def is_connected(self, peer: int) -> bool:
        return peer in self._outgoing

    def may_leave(self, now: float) -> bool:
        """All is there, and with all that still listen is what was sent to them."""
        return self.finishing and all(
            outgoing.taken or (self._assignment.is_gone(peer) and self.silence.is_silent(peer, now))
            for peer, outgoing in self._outgoing.items()
        )

    def is_alone(self) -> bool:
        """It was taken for gone, and those that are left send nothing any more."""
        return self._assignment.is_gone(self.node) and all(
            peer in self._left or peer in self._broken or peer in self._noted
            for peer in self._assignment.left()
        )

    def _owes(self, peer: int) -> bool:
        return any(self._assignment.owner(block) == peer for block in self._absent())

    def _has_tried(self, block: int) -> bool:
        return self._read_all and self._assignment.owner(block) == self.node
