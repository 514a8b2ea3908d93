"""What nodes say to each other: messages of a fixed size, which say of a block that follows which
it is and what it is like, and prove that they are of a node of this job. Pure; any thread.

Whoever reads a message takes nothing in it on trust: not the number of a block, nor its length.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

NONCE_BYTES = 32
#: What a message says: here is a block, whose bytes follow; it could not be read; the sender has
#: sent all; it is there, and has nothing to say; it wants a block that another node was to send,
#: which is gone; it has kept all up to the other's END, who may leave; it has read by itself a
#: block that the other was to send; it has read all that it is to read.
BLOCK, NOT_HERE, END, ALIVE, WANT, TAKEN, HAVE, READ_ALL = 1, 2, 3, 4, 5, 6, 7, 8
_KINDS = (BLOCK, NOT_HERE, END, ALIVE, WANT, TAKEN, HAVE, READ_ALL)
#: In place of a node's number: the keeper of the roll, and a node that has no number yet.
ROLL, UNNUMBERED = 2**32 - 1, 2**32 - 2

_MAGIC = b"SHNX"
_FORMAT = 2
_HELLO = struct.Struct("<4sI32sII64s")
_HEADER = struct.Struct("<4sIQQQ")
_MAC_BYTES = 32
HELLO_BYTES = _HELLO.size
PROOF_BYTES = _MAC_BYTES
HEADER_BYTES = _HEADER.size + _MAC_BYTES
#: Of what is said to the roll and by it.
MOST_SAID_BYTES = 4096


class WireError(Exception):
    """What a peer said is not what a node of this job would say."""


@dataclass(frozen=True)
class Hello:
    """The first message of each side: a number that it never used before, which node of how many it
    is, and which version of which checkpoint it has.
    """

    nonce: bytes
    node: int
    nodes: int
    version: str

    def packed(self) -> bytes:
        version = self.version.encode("ascii")
        return _HELLO.pack(_MAGIC, _FORMAT, self.nonce, self.node, self.nodes, version)


def unpack_hello(message: bytes) -> Hello:
    """Raises WireError."""
    if len(message) != HELLO_BYTES:
        raise WireError(f"a first message of {len(message)} bytes")
    magic, number, nonce, node, nodes, version = _HELLO.unpack(message)
    if magic != _MAGIC or number != _FORMAT:
        raise WireError("a first message of something else")
    try:
        return Hello(nonce, node, nodes, version.decode("ascii"))
    except UnicodeDecodeError:
        raise WireError("a first message without a version of a checkpoint") from None


def proof(secret: bytes, mine: Hello, theirs: Hello) -> bytes:
    """That whoever said `mine` knows the secret, for whoever said `theirs`."""
    text = b"proof" + mine.packed() + theirs.packed()
    return hmac.digest(secret, text, hashlib.sha256)


def session_key(secret: bytes, mine: Hello, theirs: Hello) -> bytes:
    """The same on both sides, and another for each pair and each time."""
    ordered = sorted((mine.packed(), theirs.packed()))
    return hmac.digest(secret, b"session" + ordered[0] + ordered[1], hashlib.sha256)


def proves(given: bytes, expected: bytes) -> bool:
    return hmac.compare_digest(given, expected)


@dataclass(frozen=True)
class Header:
    """`kind` is one of the above; `digest` the XXH3 of the block's bytes."""

    kind: int
    block: int
    length: int
    digest: int


def pack_header(key: bytes, sender: int, turn: int, header: Header) -> bytes:
    """`turn` is the number of messages that the sender sent before: none can be said twice."""
    body = _HEADER.pack(_MAGIC, header.kind, header.block, header.length, header.digest)
    return body + _mac(key, sender, turn, body)


def unpack_header(key: bytes, sender: int, turn: int, message: bytes) -> Header:
    """Raises WireError where it is not of this sender, for this turn."""
    if len(message) != HEADER_BYTES:
        raise WireError(f"a message of {len(message)} bytes")
    body, mac = message[: _HEADER.size], message[_HEADER.size :]
    if not hmac.compare_digest(mac, _mac(key, sender, turn, body)):
        raise WireError("a message that is not of a node of this job")
    magic, kind, block, length, digest = _HEADER.unpack(body)
    if magic != _MAGIC or kind not in _KINDS:
        raise WireError(f"a message of an unknown kind, {kind}")
    return Header(kind, block, length, digest)


def pack_said(key: bytes, sender: int, turn: int, said: dict[str, Any]) -> bytes:
    """Words to the roll, or of it; `turn` as of a header."""
    body = json.dumps(said).encode()
    return body + _mac(key, sender, turn, body)


def unpack_said(key: bytes, sender: int, turn: int, message: bytes) -> dict[str, Any]:
    """Raises WireError where it is not of this sender, for this turn."""
    body, mac = message[:-_MAC_BYTES], message[-_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(key, sender, turn, body)):
        raise WireError("words that are not of a node of this job")
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise WireError("words that mean nothing")
    return said


def bits_of(blocks: Iterable[int], count: int) -> bytes:
    """A bit for each of `count` blocks: whether it is one of `blocks`."""
    found = bytearray(-(-count // 8) or 1)
    for block in blocks:
        found[block // 8] |= 1 << block % 8
    return bytes(found)


def has_bit(bits: bytes, block: int) -> bool:
    return bool(bits[block // 8] >> block % 8 & 1)


def _mac(key: bytes, sender: int, turn: int, body: bytes) -> bytes:
    return hmac.digest(key, struct.pack("<IQ", sender, turn) + body, hashlib.sha256)
