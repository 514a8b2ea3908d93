"""A job of many nodes on a clock that is counted: what each node decides is decided by the
package's own code (assignment, part_taken, reading, lateness, roll), storage, network, the roll's
delay and all faults are played here. For tests; one seed is one run.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from shardahead.cluster.assignment import Assignment
from shardahead.cluster.lateness import OwnTime
from shardahead.cluster.outgoing import Said
from shardahead.cluster.part_taken import PartTaken
from shardahead.cluster.reading import Reading
from shardahead.cluster.roll import Roll
from shardahead.cluster.wire import ALIVE, BLOCK, NOT_HERE, READ_ALL

STEP_SECONDS = 0.05
_BEAT_STEPS = 4
_LEAVE_SECONDS = 5.0
_PIPE = 3  # messages on their way from one node to another
_IN_FLIGHT = 4  # blocks of a node at the storage
_NEVER = float("inf")


@dataclass
class Fate:
    """Of one node, in seconds. It is starved at times: it gets a processor once in `starved` steps
    from `starved_from` on, for ten seconds.
    """

    comes: float = 0.0
    dies: float = _NEVER
    stops: float = _NEVER
    goes_on: float = _NEVER
    starved_from: float = _NEVER
    starved: int = 1

    def runs(self, now: float, step: int) -> bool:
        if not self.comes <= now < self.dies or self.stops <= now < self.goes_on:
            return False
        hungry = self.starved_from <= now < self.starved_from + 10
        return not hungry or step % self.starved == 0

    @property
    def is_good(self) -> bool:
        """It is there from the beginning to the end, and runs all the time."""
        return self == Fate()

    @property
    def ends_whole(self) -> bool:
        return (
            self.comes < _NEVER and self.dies == _NEVER and not self.stops < self.goes_on == _NEVER
        )


@dataclass
class World:
    """blocks_per_second: of the storage, for all together where it is `shared`, else for each;
    sent_per_step: of a node's link, to all others together. wrong: how many of the blocks that
    come are not what they were said to be. cut: pairs whose connection breaks, and when.
    """

    blocks: int
    fates: list[Fate]
    blocks_per_second: float = 20.0
    shared: bool = True
    sent_per_step: int = 10
    roll_steps: int = 1
    wrong: float = 0.0
    cut: dict[tuple[int, int], float] = field(default_factory=dict)


class _Node:
    def __init__(self, number: int, world: World) -> None:
        nodes = len(world.fates)
        self.number = number
        self.fate = world.fates[number]
        self.has: set[int] = set()
        self._blocks = world.blocks
        self._absent = list(range(world.blocks))
        self.changes = 0  # nothing is to be said before there is another one
        self.nothing_at: dict[int, int] = {}
        self.time = OwnTime(self.fate.comes)
        self.part = PartTaken(
            number, Assignment(world.blocks, nodes), self.has.__contains__, self.absent
        )
        self.reading = Reading(Assignment(world.blocks, nodes))
        self.reading.node = number
        self.batch: deque[int] = deque()
        self.in_flight: set[int] = set()
        self.told = 0  # of the roll
        self.found: deque[int] = deque()  # who is gone, without the roll
        self.inbox: dict[int, deque[tuple[float, Said]]] = {}
        self.out_until = self.in_until = 0.0  # its link is busy, in steps
        self.spoke: dict[int, int] = {}
        self.sent = 0
        self.sent_at = 0.0
        self.whole_at: float | None = None
        self.left_at: float | None = None
        self.alone = False

    def absent(self) -> list[int]:
        if len(self._absent) + len(self.has) != self._blocks:
            self._absent = [block for block in self._absent if block not in self.has]
        return self._absent


class Simulation:
    """Played to its end by `run`."""

    def __init__(self, world: World, drawn: random.Random) -> None:
        self.world = world
        self.reads = 0
        self.nodes = [_Node(number, world) for number in range(len(world.fates))]
        self.now = 0.0
        self._step = 0
        self._drawn = drawn
        self._roll = Roll(len(world.fates))
        self._noted_at: list[int] = []
        self._queues: dict[int, deque[tuple[int, int]]] = {}
        self._served: dict[int, float] = {}
        self._roll_is_kept = True

    def run(self, most_seconds: float) -> None:
        while self._unfinished() and self.now < most_seconds:
            self._step += 1
            self.now = self._step * STEP_SECONDS
            self._serve()
            self._roll_is_kept = self._roll_is_kept and self.now < self.nodes[0].fate.dies
            for node in self._drawn.sample(self.nodes, len(self.nodes)):
                if node.left_at is None and node.fate.runs(self.now, self._step):
                    self._live(node)
            self._break()

    def _unfinished(self) -> bool:
        return any(n.whole_at is None or n.left_at is None for n in self.nodes if n.fate.ends_whole)

    # ---- storage, roll, connections ----

    def _serve(self) -> None:
        for place, queue in self._queues.items():
            rate = self.world.blocks_per_second * STEP_SECONDS
            self._served[place] = min(self._served.get(place, 0.0) + rate, 1.0 + rate)
            while queue and self._served[place] >= 1.0:
                self._served[place] -= 1.0
                number, block = queue.popleft()
                node = self.nodes[number]
                self.reads += 1
                node.in_flight.discard(block)
                node.reading.has_copied()
                if self.now < node.fate.dies and block not in node.has:
                    node.has.add(block)
                    node.part.has_read(block, node.time.seconds)
                    node.changes += 1

    def _note(self, **said: int) -> None:
        before = len(self._roll.noted)
        if "here" in said:
            self._roll.arrive(said["here"], "v", "h", 1)
        else:
            self._roll.lose(said["gone"])
        self._noted_at += [self._step] * (len(self._roll.noted) - before)

    def _listen_to_roll(self, node: _Node) -> Iterator[int]:
        """Who is gone."""
        while node.told < len(self._roll.noted):
            if self._noted_at[node.told] + self.world.roll_steps > self._step:
                break
            said = self._roll.noted[node.told]
            node.told += 1
            if "gone" in said:
                if self._roll_is_kept:
                    yield said["gone"]
            elif said["here"] < node.number:
                self._connect(node, self.nodes[said["here"]])
        while not self._roll_is_kept and node.found:
            yield node.found.popleft()

    def _connect(self, one: _Node, other: _Node) -> None:
        if other.left_at is not None or self.now >= other.fate.dies:
            return  # nobody answers
        for node, peer in ((one, other), (other, one)):
            lacks = set(peer.absent())
            if not node.part.meet(peer.number, lacks.__contains__, node.time.seconds):
                return
            node.inbox[peer.number] = deque()
            node.reading.meet(peer.number, self.now)
            node.changes += 1

    def _break(self) -> None:
        for (one, other), at in self.world.cut.items():
            if at <= self.now < at + STEP_SECONDS:
                self._part(self.nodes[one], self.nodes[other])
        for node in self.nodes:
            if node.fate.dies <= self.now < node.fate.dies + STEP_SECONDS:
                self._part_from_all(node)

    def _part_from_all(self, node: _Node) -> None:
        for peer in list(node.inbox):
            self._part(node, self.nodes[peer])

    def _part(self, one: _Node, other: _Node) -> None:
        for node, peer in ((one, other), (other, one)):
            if node.inbox.pop(peer.number, None) is not None:
                node.part.part_from(peer.number)

    # ---- what a node does in a step ----

    def _live(self, node: _Node) -> None:
        if node.number not in self._roll._here:
            self._note(here=node.number)
        node.time.advance(self.now)
        for gone in self._listen_to_roll(node):
            if node.part.lose(gone):
                node.reading.lose(gone)
                node.changes += 1
        self._receive(node)
        for lost in node.part.newly_lost(node.time.seconds, lambda p: not node.inbox.get(p)):
            node.found.append(lost)
            if self._roll_is_kept:
                self._note(gone=lost)
        self._send(node)
        self._read(node)
        self._may_end(node)

    def _receive(self, node: _Node) -> None:
        for peer in list(node.inbox):
            box = node.inbox[peer]
            while box and box[0][0] <= self._step:
                said = box.popleft()[1]
                node.changes += said.kind != ALIVE
                silence = node.part.silence
                (silence.feed if said.kind == BLOCK else silence.hear)(peer, node.time.seconds)
                wrong = said.kind == BLOCK and self._drawn.random() < self.world.wrong
                if wrong or said.kind == NOT_HERE:
                    node.reading.has_lost(said.block)
                elif said.kind != ALIVE:
                    if said.kind == READ_ALL:
                        node.reading.has_read_all(peer)
                    if said.kind == BLOCK:
                        node.has.add(said.block)
                    node.part.hear(peer, said.kind, said.block)

    def _send(self, node: _Node) -> None:
        for peer in self._drawn.sample(sorted(node.inbox), len(node.inbox)):
            box = self.nodes[peer].inbox.get(node.number)
            while box is not None and len(box) < _PIPE:
                said = None
                if node.nothing_at.get(peer) != node.changes:
                    said = node.part.next(peer)
                if said is None:
                    node.nothing_at[peer] = node.changes
                    if self._step - node.spoke.get(peer, 0) < _BEAT_STEPS:
                        break
                    said = Said(ALIVE)
                if said.kind == BLOCK:
                    node.sent, node.sent_at = node.sent + 1, self.now
                node.spoke[peer] = self._step
                box.append((self._arrival(node, self.nodes[peer], said), said))

    def _arrival(self, node: _Node, peer: _Node, said: Said) -> float:
        """A block takes the time that both links have for it."""
        if said.kind != BLOCK:
            return self._step + 1
        begins = max(self._step, node.out_until)
        node.out_until = begins + 1 / self.world.sent_per_step
        peer.in_until = max(begins, peer.in_until) + 1 / self.world.sent_per_step
        return max(self._step + 1, peer.in_until)

    def _read(self, node: _Node) -> None:
        while node.batch and len(node.in_flight) < _IN_FLIGHT:
            block = node.batch.popleft()
            if block not in node.has and node.reading.is_to_read(block):
                node.in_flight.add(block)
                place = -1 if self.world.shared else node.number
                self._queues.setdefault(place, deque()).append((node.number, block))
        if node.batch or node.in_flight or not (absent := node.absent()):
            return
        found = node.reading.to_read(list(absent), self.now)
        if not found and node.reading.has_waited_in_vain(self.now):
            node.reading.over = node.alone = True
            found = list(absent)
        node.batch.extend(found)
        node.changes += 1
        node.part.set_read_all(not found, node.reading.gone)

    def _may_end(self, node: _Node) -> None:
        if not node.part.finishing and node.part.is_alone():
            node.reading.over = node.alone = True
            self._part_from_all(node)
        if node.whole_at is None and not node.absent():
            node.whole_at = node.sent_at = self.now
            node.part.finishing = True
            node.changes += 1
        if node.whole_at is None:
            return
        stuck = self.now - node.sent_at > _LEAVE_SECONDS
        if node.alone or stuck or node.part.may_leave(node.time.seconds):
            node.left_at = self.now
            if self._roll_is_kept:
                self._note(gone=node.number)
            self._part_from_all(node)
