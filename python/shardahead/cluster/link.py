"""One connection to one other node: messages and blocks, one after the other, each way by a thread
of its own. A group of torch.distributed (gloo) with two members: what breaks it breaks no other.

gloo ends the process where a peer sends more than is waited for, which no check here can see
before. So links live in a process of their own (exchanger.py), which nothing depends on. Needs
torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from shardahead.cluster.wire import (
    HEADER_BYTES,
    HELLO_BYTES,
    NONCE_BYTES,
    PROOF_BYTES,
    Header,
    Hello,
    WireError,
    pack_header,
    proof,
    proves,
    session_key,
    unpack_header,
    unpack_hello,
)

if TYPE_CHECKING:
    import torch
    from torch._C._distributed_c10d import Store

#: In which a block is sent: how far it has come is not seen in between.
PIECE_BYTES = 1 << 20
#: A message that is waited for as long as it takes: who is silent is found out otherwise.
_FOR_EVER = timedelta(days=1)
_HELLO_TAG, _HEADER_TAG, _BLOCK_TAG = 0, 1, 2


class Link:
    """This node, `node` of `nodes`, and `peer`. receive() is for one thread, send() for another."""

    def __init__(self, group: Any, node: int, peer: int, nodes: int, version: str) -> None:
        self.peer = peer
        self._group = group
        self._place = 0 if node < peer else 1
        self._node = node
        self._nodes = nodes
        self._version = version
        self._key = b""
        self._sent = 0
        self._received = 0

    def greet(self, secret: bytes, seconds: float) -> None:
        """Each shows the other that it is a node of this job. Raises WireError where the other does
        not, RuntimeError where it is gone, or says nothing in time.
        """
        mine = Hello(os.urandom(NONCE_BYTES), self._node, self._nodes, self._version)
        wait = timedelta(seconds=seconds)
        theirs = unpack_hello(self._exchange(mine.packed(), HELLO_BYTES, wait))
        expected = (self.peer, self._nodes, self._version)
        if (theirs.node, theirs.nodes, theirs.version) != expected:
            raise WireError(f"it is node {theirs.node} of {theirs.nodes}, or of another version")
        given = self._exchange(proof(secret, mine, theirs), PROOF_BYTES, wait)
        if not proves(given, proof(secret, theirs, mine)):
            raise WireError("it does not know the secret of this job")
        self._key = session_key(secret, mine, theirs)

    def tell_absent(self, absent: bytes, seconds: float) -> bytes:
        """What each lacks, a bit for each block: gives the peer's. It decides what is not sent, and
        nothing else. Raises RuntimeError where the peer is gone, or says nothing in time.
        """
        return self._exchange(absent, len(absent), timedelta(seconds=seconds))

    def send(self, header: Header, block: torch.Tensor | None = None) -> None:
        """Waits until the peer has taken it. Raises RuntimeError where it is gone."""
        message = pack_header(self._key, self._node, self._sent, header)
        self._sent += 1
        self._put(message, _HEADER_TAG)
        for piece in [] if block is None else _pieces(block):
            self._group.send([piece], 1 - self._place, _BLOCK_TAG).wait(_FOR_EVER)

    def receive(self) -> Header:
        """The next message. Raises WireError for what is none, RuntimeError where the peer is
        gone.
        """
        header = unpack_header(
            self._key, self.peer, self._received, self._take(HEADER_BYTES, _HEADER_TAG, _FOR_EVER)
        )
        self._received += 1
        return header

    def receive_block(self, into: torch.Tensor, heard: Callable[[], object]) -> None:
        """What follows a message that says so; `heard` is called after each piece of it."""
        for piece in _pieces(into):
            self._group.recv([piece], 1 - self._place, _BLOCK_TAG).wait(_FOR_EVER)
            heard()

    def _exchange(self, message: bytes, length: int, wait: timedelta) -> bytes:
        import torch

        sent = torch.frombuffer(bytearray(message), dtype=torch.uint8)
        sending = self._group.send([sent], 1 - self._place, _HELLO_TAG)
        found = self._take(length, _HELLO_TAG, wait)
        sending.wait(wait)
        return found

    def _put(self, message: bytes, tag: int) -> None:
        import torch

        sent = torch.frombuffer(bytearray(message), dtype=torch.uint8)
        self._group.send([sent], 1 - self._place, tag).wait(_FOR_EVER)

    def _take(self, length: int, tag: int, wait: timedelta) -> bytes:
        import torch

        found = torch.zeros(length, dtype=torch.uint8)
        self._group.recv([found], 1 - self._place, tag).wait(wait)
        return bytes(found.numpy())


def connect(
    store: Store, device: Any, node: int, peer: int, nodes: int, version: str, seconds: float
) -> Link:
    """Waits for the peer to come. Raises RuntimeError where it does not in time."""
    from torch._C._distributed_c10d import PrefixStore
    from torch.distributed import ProcessGroupGloo

    options = _options(ProcessGroupGloo)
    options._timeout = timedelta(seconds=seconds)
    options._devices = [device]
    low, high = sorted((node, peer))
    of_both = PrefixStore(f"shardahead/1/link/{low}/{high}", store)
    group = ProcessGroupGloo(of_both, 0 if node == low else 1, 2, options)
    return Link(group, node, peer, nodes, version)


def _options(group: Any) -> Any:
    """Which torch's own stubs do not know."""
    return group._Options()


def _pieces(block: torch.Tensor) -> list[torch.Tensor]:
    ends = range(0, block.numel(), PIECE_BYTES)
    return [block[begin : begin + PIECE_BYTES] for begin in ends]
