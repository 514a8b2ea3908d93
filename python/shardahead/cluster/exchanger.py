"""The process of a node that talks to the other nodes: sends them the blocks that this one has
read, and writes what they send into the replica that is being made.

It is told what to do by one line of JSON on standard input, and tells of what happens by lines on
standard output (exchange.py has both). Nothing depends on it: where it ends, the node reads the
rest by itself. It reads no storage. Threads: one that reads standard input, one that watches, one
that waits for other nodes, two for each of them; more where the roll is kept.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from shardahead.cluster.assignment import Assignment
from shardahead.cluster.blocks_sent import BlocksSent, WrongBlockError
from shardahead.cluster.channel import Channel, ChannelError
from shardahead.cluster.lateness import BEAT_SECONDS, SILENT_SECONDS, OwnTime
from shardahead.cluster.link import Link, Party
from shardahead.cluster.part_taken import PartTaken
from shardahead.cluster.rendezvous import Address, listening_socket, own_address
from shardahead.cluster.roll import RollError
from shardahead.cluster.roll_keeper import RollKeeper
from shardahead.cluster.roll_watch import Entrant, RollWatch, join_roll
from shardahead.cluster.wire import (
    ALIVE,
    BLOCK,
    HAVE,
    NOT_HERE,
    READ_ALL,
    WANT,
    Header,
    WireError,
    bits_of,
    has_bit,
)
from shardahead.replica.layout import Layout

_WATCH_SECONDS = 0.1
_JOIN_SECONDS = 60.0
_GREET_SECONDS = 10.0
_LEAVE_SECONDS = 1.0  # for the roll to say that this node has left
_MOST_WRONG = 3
_MOST_ADMITTED = 128  # at once that have not greeted: of these anybody may be one


class Exchanger:
    """Of this node, with all others."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._layout = Layout(config["sizes_bytes"], config["block_bytes"])
        self._nodes: int = config["nodes"]
        self._node: int | None = config["node"]
        self._contents: str = config["contents"]
        self._secret = bytes.fromhex(config["secret"])
        self._address = Address(config["host"], config["port"])
        self._blocks = BlocksSent(
            config["folder"], config["targets"], self._layout, config["version"]
        )
        self._changed = threading.Condition()
        self._time = OwnTime(time.monotonic())
        self._part: PartTaken  # once this node has a number
        self._told_early: list[dict[str, Any]] | None = []  # until then
        self._links: dict[int, Link] = {}
        self._admitted = 0
        self._wrong: dict[int, int] = {}
        self._figures = {"received_bytes": 0, "sent_bytes": 0, "wrong_blocks": 0, "refused": 0}
        self._say_lock = threading.Lock()
        self._keeper: RollKeeper | None = None
        self._watched: RollWatch

    def run(self) -> None:
        """Until standard input ends, or there is nobody left to talk to."""
        threading.Thread(target=self._listen, name="shardahead-told", daemon=True).start()
        try:
            self._join()
        except (OSError, ValueError, RollError, ChannelError, WireError) as error:
            self._say(event="alone", reason=_first_line(error))
            return
        self._say(event="arrived", node=self._node)
        self._watch()

    def _join(self) -> None:
        if (kept := listening_socket(self._address)) is not None:
            self._keeper = RollKeeper(kept, self._nodes, self._secret)
        own = Address(own_address(self._address), 0)
        if (listening := listening_socket(own)) is None:
            raise ChannelError(f"there is no port to be had at {own.host}")
        own = Address(own.host, listening.getsockname()[1])
        entrant = Entrant(self._node, self._nodes, self._contents, own, self._secret)
        self._node, self._watched = join_roll(
            self._address, entrant, _JOIN_SECONDS, self._wake, self._time
        )
        assignment = Assignment(len(self._layout), self._nodes)
        self._part = PartTaken(self._node, assignment, self._blocks.is_there, self._blocks.absent)
        with self._changed:
            early, self._told_early = self._told_early or [], None
            for told in early:
                self._hear_own(told)
        self._party = Party(self._node, self._nodes, self._contents, self._secret)
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # ---- what this node's other process says, and is told ----

    def _listen(self) -> None:
        for line in sys.stdin:
            told = json.loads(line)
            with self._changed:
                if self._told_early is not None:
                    self._told_early.append(told)
                else:
                    self._hear_own(told)
                self._changed.notify_all()  # also of a block that is there now
        os._exit(0)  # whoever started this is gone

    def _hear_own(self, told: dict[str, Any]) -> None:
        if "read_all" in told:
            self._part.set_read_all(told["read_all"], told["gone"])
        if "there" in told:
            self._part.has_read(told["there"], self._time.seconds)
        if told.get("finish"):
            self._part.finishing = True

    def _say(self, **told: Any) -> None:
        with self._say_lock, suppress(OSError, ValueError):
            print(json.dumps(told), flush=True)

    # ---- who is here ----

    def _watch(self) -> None:
        told: dict[str, int] = {}
        while True:
            self._time.advance(time.monotonic())
            self._meet_those_here()
            self._look_at_others()
            if told != self._figures:
                told = dict(self._figures)
                self._say(event="figures", **told)
            with self._changed:
                alone = self._part.is_alone() and not self._part.finishing
                finished = self._part.may_leave(self._time.seconds)
                if not finished and not alone:
                    self._changed.wait(_WATCH_SECONDS)
            if alone:
                reason = "the other nodes took this one for gone, and have left"
                self._say(event="alone", reason=reason)
                return
            if finished:
                self._leave()
                return

    def _meet_those_here(self) -> None:
        """Of two nodes the one with the higher number goes to the other."""
        assert self._node is not None
        for peer, address in self._watched.newly_here():
            if peer < self._node:
                reach = partial(self._party.reach, peer, address, _GREET_SECONDS)
                threading.Thread(target=self._meet, args=(peer, reach), daemon=True).start()

    def _look_at_others(self) -> None:
        for node in self._watched.newly_gone():
            with self._changed:
                if self._part.lose(node):
                    self._say(event="gone", node=node)
                self._changed.notify_all()
        with self._changed:
            lost = self._part.newly_lost(self._time.seconds, self._is_quiet)
        for peer in lost:
            self._watched.note(peer)

    def _is_quiet(self, peer: int) -> bool:
        return peer not in self._links or self._links[peer].is_quiet(SILENT_SECONDS)

    def _leave(self) -> None:
        assert self._node is not None
        self._watched.note(self._node)
        until = time.monotonic() + _LEAVE_SECONDS
        while time.monotonic() < until and not self._watched.without_roll:
            self._time.advance(time.monotonic())
            if self._node in self._watched.newly_gone():
                break
            time.sleep(0.005)
        if self._keeper is not None:  # which ends with this process
            self._keeper.wait_until_told(_LEAVE_SECONDS)
        self._say(event="figures", **self._figures)
        self._say(event="left")

    # ---- one other node ----

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connected, _ = listening.accept()
            except OSError:  # of that connection, or too many descriptors
                time.sleep(BEAT_SECONDS)
                continue
            with self._changed:
                full = self._admitted >= _MOST_ADMITTED
                self._admitted += not full
            if full:
                connected.close()
                continue
            threading.Thread(target=self._admit, args=(Channel(connected),), daemon=True).start()

    def _admit(self, channel: Channel) -> None:
        def greeted() -> Link:
            try:
                return self._party.admit(channel, _GREET_SECONDS)
            finally:
                with self._changed:
                    self._admitted -= 1

        self._meet(None, greeted)

    def _meet(self, peer: int | None, greeted: Callable[[], Link]) -> None:
        """`peer`: None where it has come, and may be anybody."""
        try:
            link = greeted()
            lacks = link.tell_absent(bits_of(self._blocks.absent(), len(self._layout)))
            link.set_timeout(None)
        except ChannelError as error:
            if peer is not None:
                self._say(event="unmet", node=peer, reason=_first_line(error))
            return
        except WireError as error:
            self._figures["refused"] += 1
            self._say(event="refused", node=peer, reason=str(error))
            if peer is not None:
                with self._changed:
                    self._part.part_from(peer)
            return
        with self._changed:
            if not self._part.meet(link.peer, partial(has_bit, lacks), self._time.seconds):
                link.close()
                return
            self._links[link.peer] = link
        self._say(event="met", node=link.peer)
        threading.Thread(target=self._guarded, args=(self._receive, link), daemon=True).start()
        self._guarded(self._send, link)

    def _guarded(self, work: Callable[[Link], None], link: Link) -> None:
        try:
            work(link)
        except ChannelError:
            self._broken(link)
        except WireError as error:
            self._figures["refused"] += 1
            self._say(event="refused", node=link.peer, reason=str(error))
            self._broken(link)
        except (OSError, ValueError) as error:  # of this node's own disk
            self._say(event="alone", reason=str(error))
            os._exit(1)

    def _broken(self, link: Link) -> None:
        link.close()
        with self._changed:
            self._part.part_from(link.peer)
            self._changed.notify_all()

    def _send(self, link: Link) -> None:
        said_at = time.monotonic()
        while True:
            with self._changed:
                said = self._part.next(link.peer)
                if said is None:
                    self._changed.wait(BEAT_SECONDS)
                    said = self._part.next(link.peer)
                if not self._part.is_connected(link.peer):
                    return
            if said is None:
                if time.monotonic() - said_at < BEAT_SECONDS:
                    continue
                link.send(Header(ALIVE, 0, 0, 0))
            elif said.kind == BLOCK:
                header, *where = self._blocks.to_send(said.block)
                link.send(header, *where)
                with self._changed:
                    self._figures["sent_bytes"] += header.length
            else:
                link.send(Header(said.kind, said.block, 0, 0))
            said_at = time.monotonic()

    def _receive(self, link: Link) -> None:
        buffer = memoryview(bytearray(self._layout.block_bytes))

        silence = self._part.silence

        def heard() -> None:
            silence.hear(link.peer, self._time.seconds)

        def fed() -> None:
            silence.feed(link.peer, self._time.seconds)

        while True:
            heard()  # while this node does not listen, nobody is silent
            silence.listen(link.peer, listens=True)
            header = link.receive()
            heard()
            if header.kind != BLOCK:
                self._hear(link.peer, header)
                continue
            length = self._blocks.length(header)
            link.receive_block(buffer[:length], fed)
            silence.listen(link.peer, listens=False)
            self._keep(link.peer, header, buffer[:length])

    def _hear(self, peer: int, header: Header) -> None:
        if header.kind in (WANT, NOT_HERE, HAVE):
            self._blocks.require(header.block)
        if header.kind == NOT_HERE:
            self._say(event="not_here", block=header.block)
            return
        if header.kind == READ_ALL:
            self._say(event="read_all", node=peer)
        if header.kind == ALIVE:
            return
        with self._changed:
            self._part.hear(peer, header.kind, header.block)
            self._changed.notify_all()

    def _keep(self, peer: int, header: Header, content: memoryview) -> None:
        try:
            kept = self._blocks.keep(header, content)
        except WrongBlockError:
            self._figures["wrong_blocks"] += 1
            self._wrong[peer] = self._wrong.get(peer, 0) + 1
            self._say(event="not_here", block=header.block)
            if self._wrong[peer] >= _MOST_WRONG:
                raise WireError(f"{_MOST_WRONG} blocks of it were wrong") from None
            return
        with self._changed:
            self._figures["received_bytes"] += kept
            self._part.hear(peer, BLOCK, header.block)
        if kept and not self._blocks.absent():
            self._say(event="all_there")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]


def main() -> None:
    """Of a process of its own (talker.py), which ends with it."""
    if told := sys.stdin.readline():
        Exchanger(json.loads(told)).run()
    sys.stdout.flush()
    os._exit(0)  # a thread may wait for ever for a node that has stopped
