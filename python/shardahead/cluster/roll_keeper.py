"""The node whose address is the rendezvous keeps the roll of the job there (roll.py): tells each
node that proves that it knows the secret all that was noted, as it is noted. No bytes of a
checkpoint.

Threads: one that waits for nodes, two for each of them. Any thread may call.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from shardahead.cluster.channel import Channel, ChannelError
from shardahead.cluster.roll import Roll, RollError
from shardahead.cluster.wire import (
    MOST_SAID_BYTES,
    NONCE_BYTES,
    ROLL,
    Hello,
    WireError,
    pack_said,
    unpack_said,
)

#: The keeper says something at least so often.
BEAT_SECONDS = 0.2
_GREET_SECONDS = 10.0
_MOST_GREETED = 256  # at once: of these anybody may be one


class Talk:
    """Words over a channel whose two sides have greeted each other: to `other`, as `own`. One
    thread may speak, and one listen.
    """

    def __init__(self, channel: Channel, key: bytes, own: int, other: int) -> None:
        self._channel = channel
        self._key = key
        self._own, self._other = own, other
        self._said = self._heard = 0

    def say(self, **said: Any) -> None:
        """Raises ChannelError."""
        message = pack_said(self._key, self._own, self._said, said)
        self._said += 1
        self._channel.send(len(message).to_bytes(4, "little") + message)

    def is_quiet(self, seconds: float) -> bool:
        """Nothing has come for so long, and nothing lies unread. Any thread."""
        return self._channel.quiet_seconds() > seconds

    def hear(self) -> dict[str, Any]:
        """Raises ChannelError, and WireError for what is not of the other."""
        length = int.from_bytes(self._channel.receive(4), "little")
        if length > MOST_SAID_BYTES:
            raise WireError(f"{length} bytes of words")
        message = self._channel.receive(length)
        said = unpack_said(self._key, self._other, self._heard, message)
        self._heard += 1
        return said


class RollKeeper:
    """At `listening`, for `nodes` nodes that know `secret`."""

    def __init__(self, listening: socket.socket, nodes: int, secret: bytes) -> None:
        self._listening = listening
        self._secret = secret
        self._roll = Roll(nodes)
        self._changed = threading.Condition()
        self._greeted = 0
        self._told: dict[int, int] = {}  # of the roll, each that is on it
        threading.Thread(target=self._accept, name="roll-keeper", daemon=True).start()

    def wait_until_told(self, seconds: float) -> None:
        """Until all who are connected know what is noted."""
        with self._changed:
            noted = len(self._roll.noted)
            self._changed.wait_for(lambda: all(t >= noted for t in self._told.values()), seconds)

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listening.accept()
            except OSError:  # of that connection, or too many descriptors
                time.sleep(BEAT_SECONDS)
                continue
            with self._changed:
                full = self._greeted >= _MOST_GREETED
                self._greeted += not full
            if full:
                connected.close()
                continue
            threading.Thread(target=self._serve, args=(Channel(connected),), daemon=True).start()

    def _serve(self, channel: Channel) -> None:
        try:
            try:
                talk, node = self._greet(channel)
            finally:
                with self._changed:
                    self._greeted -= 1
            threading.Thread(target=self._tell, args=(talk, node, channel), daemon=True).start()
            while True:
                gone = talk.hear().get("gone")
                if isinstance(gone, int):
                    with self._changed:
                        self._roll.lose(gone)
                        self._changed.notify_all()
        except (ChannelError, WireError):
            channel.close()

    def _greet(self, channel: Channel) -> tuple[Talk, int]:
        channel.set_timeout(_GREET_SECONDS)
        mine = Hello(os.urandom(NONCE_BYTES), ROLL, self._roll.nodes, "")
        theirs, key = channel.greet(self._secret, mine, came=False)
        talk = Talk(channel, key, ROLL, theirs.node)
        asked = talk.hear()
        try:
            with self._changed:
                node = self._roll.arrive(
                    asked["node"], theirs.version, str(asked["host"]), int(asked["port"])
                )
                self._told[node] = 0
                self._changed.notify_all()
        except RollError as error:
            talk.say(refused=str(error))
            raise WireError(str(error)) from error
        except (KeyError, TypeError, ValueError) as error:
            raise WireError(f"no node says so: {error}") from error
        talk.say(node=node)
        channel.set_timeout(None)
        return talk, node

    def _tell(self, talk: Talk, node: int, channel: Channel) -> None:
        told = 0
        noted = self._roll.noted

        def is_news() -> bool:
            return told < len(noted)

        with suppress(ChannelError):
            while True:
                with self._changed:
                    self._changed.wait_for(is_news, BEAT_SECONDS)
                    new = noted[told:]
                for each in new or [{}]:  # nothing new: the keeper is there
                    talk.say(**each)
                if not new:
                    continue
                told += len(new)
                with self._changed:
                    self._told[node] = told
                    self._changed.notify_all()
        with self._changed:
            del self._told[node]
            self._changed.notify_all()
        channel.close()
