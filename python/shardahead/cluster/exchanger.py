"""The process of a node that talks to the other nodes: sends them the blocks that this one has
read, and writes what they send into the replica that is being made.

    python -m shardahead.cluster.exchanger

It is told what to do by one line of JSON on standard input, and tells of what happens by lines on
standard output (exchange.py has both). Nothing depends on it: where it ends, the node reads the
rest by itself. It reads no storage. Threads: one that reads standard input, one that watches, two
for each other node.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Any

from shardahead import _core
from shardahead.cluster.assignment import Assignment
from shardahead.cluster.lateness import BEAT_SECONDS, Silence
from shardahead.cluster.link import Link, connect
from shardahead.cluster.rendezvous import (
    Address,
    Roll,
    VersionError,
    open_store,
    own_address,
    store_of_its_own,
)
from shardahead.cluster.roll_watch import ASK_SECONDS, RollWatch
from shardahead.cluster.wire import (
    ALIVE,
    BLOCK,
    END,
    NOT_HERE,
    WANT,
    Header,
    WireError,
    bits_of,
    has_bit,
)
from shardahead.replica.blocks_there import ABSENT, BlocksThere, open_blocks
from shardahead.replica.layout import Layout

_WATCH_SECONDS = 0.1
_JOIN_SECONDS = 60.0
_GREET_SECONDS = 10.0
_BREAK_SECONDS = 1.0  # between two looks of one's own: this process was stopped
_MOST_WRONG = 3
#: Ahead of the first block that is not there yet, one that is there may be sent.
_REACH = 16


class Exchanger:
    """Of this node, with all others."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._layout = Layout(config["sizes_bytes"], config["block_bytes"])
        self._targets: list[str] = config["targets"]
        self._nodes: int = config["nodes"]
        self._node: int | None = config["node"]
        self._contents: str = config["contents"]
        self._secret = bytes.fromhex(config["secret"])
        self._address = Address(config["host"], config["port"])
        found = open_blocks(config["folder"], self._layout, config["version"], write=True)
        if found is None:
            raise ValueError("there are no blocks to exchange")
        self._blocks: BlocksThere = found
        self._descriptors: dict[int, int] = {}
        self._mapped: dict[int, mmap.mmap] = {}
        self._changed = threading.Condition()
        self._assignment = Assignment(len(self._layout), self._nodes)
        self._silence = Silence(time.monotonic())
        self._ended: set[int] = set()  # they have left, or their link is broken
        self._sending: set[int] = set()  # to them not all is sent
        self._read_all = False  # all that this node is to read
        self._finishing = False
        self._asks: dict[int, deque[int]] = {}  # by whom is asked
        self._wanted: dict[int, deque[int]] = {}  # by who asks
        self._wrong: dict[int, int] = {}
        self._figures = {"received_bytes": 0, "sent_bytes": 0, "wrong_blocks": 0, "refused": 0}
        self._say_lock = threading.Lock()

    def run(self) -> None:
        """Until standard input ends, or there is nobody left to talk to."""
        threading.Thread(target=self._listen, name="shardahead-told", daemon=True).start()
        try:
            store = open_store(self._address, _JOIN_SECONDS)
            roll = Roll(store, self._nodes)
            self._node = roll.arrive(self._node, self._contents)
        except (RuntimeError, OSError, ValueError, VersionError) as error:
            self._say(event="alone", reason=_first_line(error))
            return
        self._say(event="arrived", node=self._node)
        for peer in range(self._nodes):
            if peer != self._node:
                threading.Thread(
                    target=self._meet, args=(peer,), name=f"peer-{peer}", daemon=True
                ).start()
        self._watched = RollWatch(roll)
        self._watch()

    # ---- what this node's other process says, and is told ----

    def _listen(self) -> None:
        for line in sys.stdin:
            told = json.loads(line)
            with self._changed:
                if "read_all" in told:
                    self._read_all = told["read_all"]
                if told.get("finish"):
                    self._finishing = True
                self._changed.notify_all()
        os._exit(0)  # whoever started this is gone

    def _say(self, **told: Any) -> None:
        with self._say_lock, suppress(OSError, ValueError):
            print(json.dumps(told), flush=True)

    # ---- who is here ----

    def _watch(self) -> None:
        looked = woke = time.monotonic()
        told: dict[str, int] = {}
        while True:
            with self._changed:
                self._changed.wait(_WATCH_SECONDS)
                finished = self._finishing and not self._sending
            now = time.monotonic()
            if now - looked > _BREAK_SECONDS:
                woke = now
            looked = now
            if finished:
                self._leave()
                return
            if not self._look_at_others(now, woke):
                return
            if told != self._figures:
                told = dict(self._figures)
                self._say(event="figures", **told)

    def _look_at_others(self, now: float, woke: float) -> bool:
        for node in self._watched.newly_gone():
            if node == self._node:
                self._say(event="alone", reason="the other nodes took this one for gone")
                return False
            with self._changed:
                before = [block for block in self._blocks.absent() if self._is_of(block, node)]
                if self._assignment.lose(node):
                    self._say(event="gone", node=node)
                    self._ask_others(before)
                self._sending.discard(node)
                self._changed.notify_all()
        self._silence.set_idle(now, idle=self._read_all)
        for peer in self._assignment.left():
            known = peer == self._node or peer in self._ended
            if not known and self._silence.is_lost(peer, now, woke):
                self._lose(peer)
        return True

    def _is_of(self, block: int, node: int) -> bool:
        return self._assignment.owner(block) == node

    def _ask_others(self, blocks: list[int]) -> None:
        """For what a node that is gone has not sent. What it has, most have."""
        for block in blocks:
            owner = self._assignment.owner(block)
            if owner != self._node:
                self._asks.setdefault(owner, deque()).append(block)

    def _lose(self, peer: int) -> None:
        self._ended.add(peer)
        self._watched.note(peer)

    def _leave(self) -> None:
        assert self._node is not None
        self._watched.note(self._node)
        time.sleep(2 * ASK_SECONDS)  # it is on the roll then
        self._say(event="figures", **self._figures)
        self._say(event="left")

    # ---- one other node ----

    def _meet(self, peer: int) -> None:
        from torch.distributed import ProcessGroupGloo

        assert self._node is not None
        try:
            store = store_of_its_own(self._address, _JOIN_SECONDS)
            device = ProcessGroupGloo.create_device(hostname=own_address(self._address))
            link = connect(
                store, device, self._node, peer, self._nodes, self._contents, _JOIN_SECONDS
            )
            link.greet(self._secret, _GREET_SECONDS)
            absent = bits_of(self._blocks.absent(), len(self._layout))
            lacks = link.tell_absent(absent, _GREET_SECONDS)
        except (RuntimeError, OSError) as error:
            self._say(event="unmet", node=peer, reason=_first_line(error))
            return
        except WireError as error:
            self._figures["refused"] += 1
            self._say(event="refused", node=peer, reason=str(error))
            self._lose(peer)
            return
        with self._changed:
            self._silence.hear(peer, time.monotonic())
            self._sending.add(peer)
        self._say(event="met", node=peer)
        threading.Thread(
            target=self._guarded, args=(peer, self._receive, link), daemon=True
        ).start()
        self._guarded(peer, partial(self._send, lacks), link)

    def _guarded(self, peer: int, work: Any, link: Link) -> None:
        try:
            work(link)
        except RuntimeError:  # gloo's: the connection is broken
            self._broken(peer)
        except WireError as error:
            self._figures["refused"] += 1
            self._say(event="refused", node=peer, reason=str(error))
            self._broken(peer)
        except (OSError, ValueError) as error:  # of this node's own disk
            self._say(event="alone", reason=str(error))
            os._exit(1)

    def _broken(self, peer: int) -> None:
        if peer not in self._ended:
            self._lose(peer)
        with self._changed:
            self._sending.discard(peer)
            self._changed.notify_all()

    # ---- to it ----

    def _send(self, lacks: bytes, link: Link) -> None:
        """`lacks`: which blocks the peer had not when it was met."""
        assert self._node is not None
        own = self._assignment.was_of(self._node)
        waiting = deque(block for block in own if has_bit(lacks, block))
        said = time.monotonic()
        while True:
            ask = None
            with self._changed:
                if link.peer not in self._sending:
                    return
                if self._asks.get(link.peer):
                    ask = self._asks[link.peer].popleft()
                while self._wanted.get(link.peer):
                    waiting.append(self._wanted[link.peer].popleft())
                number = self._next(waiting)
                if number is None and not waiting and self._finishing:
                    break
                given_up = number is None and bool(waiting) and self._read_all
                if number is None and not given_up and ask is None:
                    self._changed.wait(BEAT_SECONDS)
            if ask is not None:
                link.send(Header(WANT, ask, 0, 0))
            if number is not None:
                self._send_block(link, number)
            elif given_up:
                link.send(Header(NOT_HERE, waiting.popleft(), 0, 0))
            elif ask is None and time.monotonic() - said >= BEAT_SECONDS:
                link.send(Header(ALIVE, 0, 0, 0))
            elif ask is None:
                continue
            said = time.monotonic()
        link.send(Header(END, 0, 0, 0))
        with self._changed:
            self._sending.discard(link.peer)
            self._changed.notify_all()

    def _next(self, waiting: deque[int]) -> int | None:
        for place in range(min(_REACH, len(waiting))):
            number = waiting[place]
            if self._blocks.state(number) != ABSENT:
                del waiting[place]
                return number
        return None

    def _send_block(self, link: Link, number: int) -> None:
        import torch

        block = self._layout.block(number)
        view = memoryview(self._mapping(block.file))[block.offset : block.offset + block.length]
        bytes_of_it = torch.frombuffer(view, dtype=torch.uint8)
        header = Header(BLOCK, number, block.length, self._blocks.digest(number))
        link.send(header, bytes_of_it)
        with self._changed:
            self._figures["sent_bytes"] += block.length

    def _mapping(self, file: int) -> mmap.mmap:
        with self._changed:
            if file not in self._mapped:
                # Writable, for torch has no tensors that are not; nobody writes to it.
                size = self._layout.sizes_bytes[file]
                self._mapped[file] = mmap.mmap(self._descriptor(file), size)
            return self._mapped[file]

    def _descriptor(self, file: int) -> int:
        if file not in self._descriptors:
            flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            self._descriptors[file] = os.open(self._targets[file], flags)
        return self._descriptors[file]

    # ---- from it ----

    def _receive(self, link: Link) -> None:
        import torch

        buffer = torch.empty(self._layout.block_bytes, dtype=torch.uint8)

        def heard() -> None:
            self._silence.hear(link.peer, time.monotonic())

        while True:
            heard()  # while this node does not listen, nobody is silent
            self._silence.listen(link.peer, listens=True)
            header = link.receive()
            heard()
            if header.kind == END:
                self._ended.add(link.peer)
                return
            if header.kind == ALIVE:
                continue
            if not 0 <= header.block < len(self._layout):
                raise WireError(f"there is no block {header.block}")
            if header.kind == WANT:
                with self._changed:
                    self._wanted.setdefault(link.peer, deque()).append(header.block)
                    self._changed.notify_all()
                continue
            if header.kind == NOT_HERE:
                self._say(event="not_here", block=header.block)
                continue
            block = self._layout.block(header.block)
            if header.length != block.length:
                raise WireError(f"block {block.number} has {block.length} bytes")
            into = buffer[: block.length]
            link.receive_block(into, heard)
            self._silence.listen(link.peer, listens=False)
            self._keep(link.peer, header, into.numpy())

    def _keep(self, peer: int, header: Header, content: Any) -> None:
        """What came of a block, where it is not there already. Not before it is known to be right:
        others load from the replica.
        """
        block = self._layout.block(header.block)
        if self._blocks.state(block.number) != ABSENT:
            return
        if _core.digest_of(content) != header.digest:
            self._figures["wrong_blocks"] += 1
            self._wrong[peer] = self._wrong.get(peer, 0) + 1
            self._say(event="not_here", block=block.number)
            if self._wrong[peer] >= _MOST_WRONG:
                raise WireError(f"{_MOST_WRONG} blocks of it were wrong")
            return
        with self._changed:
            descriptor = self._descriptor(block.file)
        left = memoryview(content)
        at = block.offset
        while left:
            written = os.pwrite(descriptor, left, at)
            left, at = left[written:], at + written
        self._blocks.note(block.number, header.digest)
        with self._changed:
            self._figures["received_bytes"] += block.length


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]


def main() -> None:
    Exchanger(json.loads(sys.stdin.readline())).run()
    sys.stdout.flush()
    os._exit(0)  # a thread may wait for ever for a node that has stopped


if __name__ == "__main__":
    main()
