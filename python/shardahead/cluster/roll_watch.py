"""What a node learns of who is here and who is gone: from the roll of its job, listened to by a
thread of its own; once nobody speaks there, from what it finds out itself.

One thread that asks this; the thread that listens is started here.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from shardahead.cluster.channel import ChannelError, connected_to
from shardahead.cluster.lateness import SILENT_SECONDS, OwnTime
from shardahead.cluster.rendezvous import Address
from shardahead.cluster.roll import RollError
from shardahead.cluster.roll_keeper import Talk
from shardahead.cluster.wire import NONCE_BYTES, ROLL, UNNUMBERED, Hello, WireError

_GREET_SECONDS = 10.0


@dataclass(frozen=True)
class Entrant:
    """Who wants to get on the roll. node: None where it has no number. address: where it listens.
    version: of its checkpoint.
    """

    node: int | None
    nodes: int
    version: str
    address: Address
    secret: bytes


def join_roll(
    roll: Address, entrant: Entrant, seconds: float, told: Callable[[], object], time: OwnTime
) -> tuple[int, RollWatch]:
    """This node's number, and the roll; `told` is called when there is something new, `time` is
    that of this process. Raises RollError where it does not get on it, WireError where the keeper
    does not know the secret, ChannelError where there is none in time.
    """
    channel = connected_to(roll, seconds)
    channel.set_timeout(_GREET_SECONDS)
    own = UNNUMBERED if entrant.node is None else entrant.node
    mine = Hello(os.urandom(NONCE_BYTES), own, entrant.nodes, entrant.version)
    theirs, key = channel.greet(entrant.secret, mine, came=True)
    if (theirs.node, theirs.nodes) != (ROLL, entrant.nodes):
        raise WireError(f"no roll of {entrant.nodes} nodes is kept there")
    talk = Talk(channel, key, own, ROLL)
    talk.say(node=entrant.node, host=entrant.address.host, port=entrant.address.port)
    said = talk.hear()
    if not isinstance(said.get("node"), int):
        raise RollError(str(said.get("refused")))
    channel.set_timeout(None)
    return said["node"], RollWatch(talk, entrant.nodes, told, time)


class RollWatch:
    """Of one node, of a roll of `nodes`."""

    def __init__(self, talk: Talk, nodes: int, told: Callable[[], object], time: OwnTime) -> None:
        self._talk = talk
        self._told = told
        self._nodes = nodes
        self._time = time
        self._heard = time.seconds
        self._without_roll = False
        self._here: deque[tuple[int, Address]] = deque()
        self._on_roll: deque[int] = deque()  # who is gone, and not taken note of
        self._found: deque[int] = deque()  # the same, as this node itself has found it out
        threading.Thread(target=self._listen, name="roll", daemon=True).start()

    @property
    def without_roll(self) -> bool:
        """Nobody keeps it any more."""
        return self._without_roll

    def note(self, node: int) -> None:
        """It is gone, as this node has found out."""
        self._found.append(node)
        try:
            self._talk.say(gone=node)
        except ChannelError:
            self._without_roll = True

    def newly_here(self) -> list[tuple[int, Address]]:
        """Since the last call, and where they listen."""
        return _taken(self._here)

    def newly_gone(self) -> list[int]:
        """Since the last call: in the order of the roll, while it speaks."""
        silent = self._time.seconds - self._heard > SILENT_SECONDS
        if silent and self._talk.is_quiet(SILENT_SECONDS):
            self._without_roll = True
        return _taken(self._found if self._without_roll else self._on_roll)

    def _listen(self) -> None:
        # Its keeper has left, or died, or says what no keeper says.
        with suppress(ChannelError, WireError, LookupError, TypeError, ValueError):
            while True:
                said = self._talk.hear()
                self._heard = self._time.seconds
                if isinstance(gone := said.get("gone"), int) and 0 <= gone < self._nodes:
                    self._on_roll.append(gone)
                if isinstance(here := said.get("here"), int) and 0 <= here < self._nodes:
                    self._here.append((here, Address(str(said["host"]), int(said["port"]))))
                if said:
                    self._told()
        self._without_roll = True


_Each = TypeVar("_Each")


def _taken(source: deque[_Each]) -> list[_Each]:
    found = []
    with suppress(IndexError):
        while True:
            found.append(source.popleft())
    return found
