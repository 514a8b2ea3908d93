"""One connection to one other node: messages and blocks, one after the other, each way by a thread
of its own. What breaks it breaks no other.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from shardahead.cluster.channel import Channel, ChannelError, connected_to
from shardahead.cluster.rendezvous import Address
from shardahead.cluster.wire import (
    HEADER_BYTES,
    NONCE_BYTES,
    Header,
    Hello,
    WireError,
    pack_header,
    unpack_header,
)

#: In which a block is received: how far it has come is not seen in between.
PIECE_BYTES = 1 << 20


class Link:
    """This node, `node`, and `peer`, who have greeted each other. receive() is for one thread,
    send() for another. What it raises of a connection that is broken is ChannelError.
    """

    def __init__(self, channel: Channel, node: int, peer: int, key: bytes) -> None:
        self.peer = peer
        self._channel = channel
        self._node = node
        self._key = key
        self._sent = 0
        self._received = 0

    def tell_absent(self, absent: bytes) -> bytes:
        """What each lacks, a bit for each block: gives the peer's. It decides what is not sent, and
        nothing else.
        """
        self._channel.send(absent)
        return self._channel.receive(len(absent))

    def set_timeout(self, seconds: float | None) -> None:
        self._channel.set_timeout(seconds)

    def send(self, header: Header, descriptor: int = -1, offset: int = 0) -> None:
        """Waits while the peer takes nothing. Behind a header with a length go so many bytes of the
        file `descriptor`. Raises OSError where these cannot be read.
        """
        message = pack_header(self._key, self._node, self._sent, header)
        self._sent += 1
        self._channel.send(message, more=header.length > 0)
        if header.length:
            self._channel.send_file(descriptor, offset, header.length)

    def receive(self) -> Header:
        """The next message. Raises WireError for what is none."""
        message = self._channel.receive(HEADER_BYTES)
        header = unpack_header(self._key, self.peer, self._received, message)
        self._received += 1
        return header

    def receive_block(self, into: memoryview, heard: Callable[[], object]) -> None:
        """What follows a message that says so; `heard` is called after each piece of it."""
        for begin in range(0, len(into), PIECE_BYTES):
            self._channel.receive_into(into[begin : begin + PIECE_BYTES])
            heard()

    def is_quiet(self, seconds: float) -> bool:
        """Nothing has come for so long, and nothing lies unread. Any thread."""
        return self._channel.quiet_seconds() > seconds

    def close(self) -> None:
        """Any thread: whoever waits on it learns that it is broken."""
        self._channel.close()


class Party:
    """Who this node is to all others: number `node` of `nodes`, with this version, and the secret.
    Any thread.
    """

    def __init__(self, node: int, nodes: int, version: str, secret: bytes) -> None:
        self.node = node
        self._nodes = nodes
        self._version = version
        self._secret = secret

    def reach(self, peer: int, address: Address, seconds: float) -> Link:
        """A connection to it. Raises WireError where somebody else answers, ChannelError where
        nobody does in time.
        """
        channel = connected_to(address, seconds)
        link = self._greeted(channel, seconds, came=True)
        if link.peer != peer:
            raise WireError(f"it is node {link.peer}")
        return link

    def admit(self, channel: Channel, seconds: float) -> Link:
        """Of whoever has come. Raises WireError where that is no node of the job that is to come,
        ChannelError where it says nothing in time.
        """
        link = self._greeted(channel, seconds, came=False)
        if link.peer < self.node:
            raise WireError(f"it is node {link.peer}, which waits for this one")
        return link

    def _greeted(self, channel: Channel, seconds: float, *, came: bool) -> Link:
        try:
            return self._greet(channel, seconds, came=came)
        except (WireError, ChannelError):
            channel.close()
            raise

    def _greet(self, channel: Channel, seconds: float, *, came: bool) -> Link:
        channel.set_timeout(seconds)
        mine = Hello(os.urandom(NONCE_BYTES), self.node, self._nodes, self._version)
        theirs, key = channel.greet(self._secret, mine, came=came)
        if theirs.node >= self._nodes or theirs.nodes != self._nodes:
            raise WireError(f"it is node {theirs.node} of {theirs.nodes}")
        if theirs.version != self._version:
            raise WireError("it has another version of the checkpoint")
        return Link(channel, self.node, theirs.node, key)
