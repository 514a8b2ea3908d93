"""What the nodes of a job say to each other, and when they may leave: the roll, what is said next,
and staging with others that are played here.
"""

from __future__ import annotations

import os
import random
import socket
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import eventually, finish, start_python
from replica_support import check_same

from shardahead.checkpoint.shards import resolve_shards
from shardahead.cluster.channel import Channel, ChannelError
from shardahead.cluster.lateness import OwnTime
from shardahead.cluster.link import Party
from shardahead.cluster.outgoing import Outgoing, Said
from shardahead.cluster.rendezvous import Address, listening_socket
from shardahead.cluster.roll import Roll, RollError
from shardahead.cluster.roll_keeper import RollKeeper
from shardahead.cluster.roll_watch import Entrant, RollWatch, join_roll
from shardahead.cluster.wire import BLOCK, END, NOT_HERE, TAKEN, WANT, WireError
from shardahead.node.topology import local_topology
from shardahead.prefetch.options import resolve_options
from shardahead.replica.stage import StageRun
from shardahead.replica.staging import Staging

# ---- what is said next ----


NONE: frozenset[int] = frozenset()
ALL = frozenset(range(1000))


def test_blocks_are_sent_as_they_come_and_the_end_when_nothing_is_left() -> None:
    there: set[int] = set()
    out = Outgoing([0, 2, 4], there.__contains__)
    assert out.next(has_tried=NONE.__contains__, finishing=False) is None
    there.add(2)
    assert out.next(has_tried=NONE.__contains__, finishing=False) == Said(BLOCK, 2)
    out.ask(5)
    assert out.next(has_tried=NONE.__contains__, finishing=False) == Said(WANT, 5)
    there.add(0)
    out.want(0)  # again: the peer lost who was to send it
    assert out.next(has_tried=NONE.__contains__, finishing=False) == Said(BLOCK, 0)
    assert out.next(has_tried=ALL.__contains__, finishing=False) == Said(BLOCK, 0)
    assert out.next(has_tried=ALL.__contains__, finishing=False) == Said(NOT_HERE, 4)
    assert out.next(has_tried=ALL.__contains__, finishing=False) is None
    assert out.next(has_tried=ALL.__contains__, finishing=True) == Said(END)
    out.take()
    assert out.next(has_tried=ALL.__contains__, finishing=True) == Said(TAKEN)
    assert out.next(has_tried=ALL.__contains__, finishing=True) is None


def test_a_block_that_is_late_holds_up_few_of_those_behind_it() -> None:
    out = Outgoing(range(100), lambda block: block >= 20)
    assert (
        out.next(has_tried=NONE.__contains__, finishing=False) is None
    )  # they are consumed in order
    out = Outgoing(range(100), lambda block: block >= 10)
    assert out.next(has_tried=NONE.__contains__, finishing=False) == Said(BLOCK, 10)


@pytest.mark.parametrize(("nodes", "seeds"), [(2, 2000), (4, 1000), (16, 60)])
def test_nobody_leaves_before_what_it_sent_is_kept(nodes: int, seeds: int) -> None:
    """Nodes that read, send, receive and leave in any order; what is under way to a node when its
    sender has left is lost.
    """
    for seed in range(seeds):
        drawn = random.Random(seed)
        blocks = drawn.randrange(5 * nodes)
        has: list[set[int]] = [set() for _ in range(nodes)]
        ways = [(a, b) for a in range(nodes) for b in range(nodes) if a != b]
        out = {(a, b): Outgoing(range(a, blocks, nodes), has[a].__contains__) for a, b in ways}
        under_way: dict[tuple[int, int], deque[Said]] = {way: deque() for way in ways}
        left: set[int] = set()

        def finishing(node: int, has: list[set[int]] = has, blocks: int = blocks) -> bool:
            return len(has[node]) == blocks

        while len(left) < nodes:
            node = drawn.choice([n for n in range(nodes) if n not in left])
            unread = [b for b in range(node, blocks, nodes) if b not in has[node]]
            if unread and drawn.random() < 0.5:
                has[node].add(unread[0])
            tried = (NONE if unread else ALL).__contains__
            for peer in drawn.sample([n for n in range(nodes) if n != node], nodes - 1):
                said = out[node, peer].next(has_tried=tried, finishing=finishing(node))
                if said is not None and peer not in left:
                    under_way[node, peer].append(said)
                if under_way[peer, node] and drawn.random() < 0.5:
                    came = under_way[peer, node].popleft()
                    assert came.kind != NOT_HERE, seed
                    if came.kind == BLOCK:
                        has[node].add(came.block)
                    elif came.kind == END:
                        out[node, peer].take()
                    elif came.kind == TAKEN:
                        out[node, peer].taken = True
            others = [n for n in range(nodes) if n not in left and n != node]
            if finishing(node) and all(out[node, peer].taken for peer in others):
                left.add(node)
                for peer in others:
                    lost = [said for said in under_way[node, peer] if said.kind == BLOCK]
                    assert not lost, seed
                    under_way[node, peer].clear()
        assert all(len(each) == blocks for each in has)


# ---- the roll ----


def test_a_roll_numbers_those_that_have_no_number_and_refuses_who_is_too_many() -> None:
    roll = Roll(2)
    assert [roll.arrive(None, "v", "h", 1), roll.arrive(None, "v", "h", 2)] == [0, 1]
    for node in (None, 2, -1):
        with pytest.raises(RollError, match="there are enough"):
            roll.arrive(node, "v", "h", 3)
    roll.lose(1)
    roll.lose(1)
    roll.lose(7)
    here = [{"here": 0, "host": "h", "port": 1}, {"here": 1, "host": "h", "port": 2}]
    assert roll.noted == [*here, {"gone": 1}]
    with pytest.raises(RollError, match="has been here before"):
        roll.arrive(1, "v", "h", 4)


def test_a_roll_is_of_one_version() -> None:
    roll = Roll(3)
    roll.arrive(1, "v", "h", 1)
    with pytest.raises(RollError, match="another version"):
        roll.arrive(2, "w", "h", 2)
    assert len(roll.noted) == 1


class Meeting:
    """A roll that is kept here, for `nodes` nodes."""

    def __init__(self, nodes: int) -> None:
        listening = listening_socket(Address("127.0.0.1", 0))
        assert listening is not None
        self.nodes = nodes
        self.address = Address("127.0.0.1", listening.getsockname()[1])
        self.keeper = RollKeeper(listening, nodes, b"a secret")
        self.told = threading.Event()
        self.time = OwnTime(0.0)

    def join(self, node: int | None, *, secret: bytes = b"a secret") -> tuple[int, RollWatch]:
        place = Address("10.0.0.1", 100 + (node or 0))
        entrant = Entrant(node, self.nodes, "v" * 64, place, secret)
        return join_roll(self.address, entrant, 20.0, self.told.set, self.time)


def test_all_learn_the_same_in_the_same_order() -> None:
    meeting = Meeting(4)
    watches = dict(meeting.join(node) for node in range(3))
    watches[0].note(2)
    eventually(lambda: watches[1]._on_roll, "nothing is told")
    watches[1].note(1)
    eventually(lambda: len(watches[0]._on_roll) == 2, "nothing is told")
    assert meeting.told.is_set()
    _, late = meeting.join(3)
    eventually(lambda: len(late._on_roll) == 2, "what was noted before is not told")
    meeting.keeper.wait_until_told(20.0)
    eventually(lambda: len(watches[0]._here) == 4, "not all are told")
    for watch in (watches[0], late):
        assert [node for node, _ in watch.newly_here()] == [0, 1, 2, 3]
        assert watch.newly_gone() == [2, 1]
        assert watch.newly_gone() == []


def test_a_keeper_says_nothing_between_its_beats_but_what_is_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shardahead.cluster.roll_keeper.BEAT_SECONDS", 3600.0)
    meeting = Meeting(2)
    watches = [meeting.join(node)[1] for node in range(2)]
    meeting.keeper.wait_until_told(20.0)
    watches[0].note(1)
    for watch in watches:
        eventually(lambda: watch._on_roll, "nothing is told")  # noqa: B023
        # Its number, who is here, twice, and who is gone.
        assert watch._talk._heard == 4


def test_without_a_keeper_what_oneself_has_found_counts() -> None:
    meeting = Meeting(3)
    _, watch = meeting.join(0)
    watch.note(1)
    eventually(lambda: watch._on_roll, "nothing is told")
    assert watch.newly_gone() == [1]
    assert not watch.without_roll
    watch.note(2)
    watch._talk._channel.close()
    eventually(lambda: watch.without_roll, "it waits for a keeper that has left")
    assert watch.newly_gone() == [1, 2]


def test_a_keeper_is_silent_when_nothing_comes_while_this_node_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shardahead.cluster.roll_keeper.BEAT_SECONDS", 3600.0)
    meeting = Meeting(2)
    _, watch = meeting.join(0)
    meeting.keeper.wait_until_told(20.0)
    meeting.time.advance(1000.0)  # oneself was stopped
    watch.newly_gone()
    assert not watch.without_roll
    quiet = watch._talk._channel.quiet_seconds
    assert quiet() < 60.0
    for step in range(20):
        meeting.time.advance(1000.0 + step / 10)
    monkeypatch.setattr(watch._talk._channel, "quiet_seconds", lambda: 0.0)  # a word waits unread
    watch.newly_gone()
    assert not watch.without_roll
    monkeypatch.setattr(watch._talk._channel, "quiet_seconds", lambda: 2.0)
    watch.newly_gone()
    assert watch.without_roll


def test_the_kernel_knows_what_came_when_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    channel = Channel(one)
    eventually(lambda: channel.quiet_seconds() > 0.01, "nothing came, and it is said to")
    other.send(b"word")
    eventually(lambda: channel.quiet_seconds() == 0.0, "what came is not seen")
    assert channel.receive(4) == b"word"
    assert channel.quiet_seconds() < 60.0
    one.close()
    other.close()
    assert channel.quiet_seconds() == float("inf")


def test_who_does_not_know_the_secret_gets_on_no_roll() -> None:
    meeting = Meeting(2)
    with pytest.raises(WireError, match="another secret"):
        meeting.join(0, secret=b"another")
    number, _ = meeting.join(None)
    assert number == 0


# ---- two nodes greet each other ----


def test_a_mirror_is_not_a_node() -> None:
    """Who only says again what it hears proves nothing."""
    one, other = socket.socketpair(socket.AF_UNIX)
    with other:
        party = Party(0, 2, "v" * 64, b"a secret")
        found: list[BaseException] = []

        def admit() -> None:
            try:
                party.admit(_Plain(one), 20.0)
            except (WireError, ChannelError) as error:
                found.append(error)

        waits = threading.Thread(target=admit)
        waits.start()
        other.sendall(other.recv(1000))
        assert other.recv(1000) == b""  # it has hung up
        waits.join()
        assert isinstance(found[0], WireError)


class _Plain(Channel):
    """A channel of a socket that is no TCP connection."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._maps = True


# ---- the process that talks ----

TALKER = """
import os, signal, sys, time
from shardahead.cluster.talker import Talker

def echo():
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    print(os.getpid(), flush=True)
    for line in sys.stdin:
        print(line.strip(), flush=True)

signal.signal(signal.SIGTERM, lambda *_: None)
talker = Talker(echo, quiet=True)
lines = talker.lines()
print(next(lines).strip(), flush=True)
talker.say({"a": 1})
assert next(lines) == '{"a": 1}\\n'
if sys.argv[1] == "stops":
    talker.stop()
    talker.stop()
    talker.say({"b": 2})
    assert next(lines, "") == ""
elif sys.argv[1] == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["stops", "dies", "ends"])
def test_the_process_that_talks_is_a_fork_that_ends_with_its_node(how: str) -> None:
    run = start_python(TALKER, how)
    assert run.stdout is not None
    talker = int(run.stdout.readline())
    finish(run)
    assert run.returncode == (-9 if how == "dies" else 0)
    eventually(lambda: not os.path.exists(f"/proc/{talker}/fd/0"), "it goes on")


# ---- a staging with others that are played here ----


class Others:
    """Read nothing, and take note of what they are told."""

    def __init__(self, staging: Staging, whole: Path) -> None:
        self.copied: set[int] = set()
        self.blocks = len(staging.layout)
        self.whole = whole
        self.whole_at_the_end: list[bool] = []

    def to_read(self, absent: Sequence[int]) -> list[int]:
        return list(absent)

    def is_to_read(self, block: int) -> bool:
        return block < self.blocks

    def has_copied(self, block: int) -> None:
        self.copied.add(block)

    def wait(self, seconds: float) -> None:
        pass

    def finish(self) -> None:
        self.whole_at_the_end.append(self.whole.is_dir())

    def stop(self) -> None:
        pass


def test_a_replica_is_whole_while_others_are_still_sent_its_blocks(
    model: Path, local: Path
) -> None:
    played: list[Others] = []

    def join(staging: Staging) -> Others:
        played.append(Others(staging, local / "model"))
        return played[0]

    shards = resolve_shards(model)
    run = StageRun(shards, str(local), resolve_options(), local_topology(), join=join)
    run.start()
    assert run.wait(60)
    check_same(model, run.result().path)
    assert played[0].copied == set(range(played[0].blocks))
    assert played[0].whole_at_the_end == [True]
