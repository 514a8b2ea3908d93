"""One TCP connection to a process of another node: bytes, a file's bytes without a copy, and the
greeting by which both sides learn that the other knows the secret.

receive() is for one thread, send() for another, close() for any.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import termios
import time
from contextlib import suppress

from shardahead.cluster.rendezvous import Address
from shardahead.cluster.wire import (
    HELLO_BYTES,
    PROOF_BYTES,
    Hello,
    WireError,
    proof,
    proves,
    session_key,
    unpack_hello,
)

#: Of a file that is sent, at once.
_PIECE_BYTES = 4 << 20
_AGAIN_SECONDS = 0.05  # while nobody listens at an address
#: Of the kernel's `tcp_info`: where the milliseconds lie since bytes came last.
_LAST_CAME = struct.Struct("52xI")
_NO_SENDFILE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class ChannelError(Exception):
    """The connection is broken, or nothing came in time."""


class LeftError(ChannelError):
    """The other side has closed it."""


class Channel:
    """`connected` is this one's from now on."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._maps = True  # the files that are sent: no bytes of theirs come through here

    def set_timeout(self, seconds: float | None) -> None:
        """Of each wait from now on; None: as long as it takes."""
        self._socket.settimeout(seconds)

    def send(self, message: bytes, *, more: bool = False) -> None:
        """Raises ChannelError. more: something follows at once."""
        try:
            self._socket.sendall(message, socket.MSG_MORE if more else 0)
        except OSError as error:
            raise ChannelError(_said(error)) from error

    def send_file(self, descriptor: int, offset: int, length: int) -> None:
        """Raises ChannelError; OSError, EIO, where the file cannot be read."""
        while length:
            piece = min(length, _PIECE_BYTES)
            sent = self._send_piece(descriptor, offset, piece)
            if not sent:
                raise OSError(errno.EIO, "a file of the replica is shorter than it was")
            offset, length = offset + sent, length - sent

    def _send_piece(self, descriptor: int, offset: int, length: int) -> int:
        if self._maps:
            try:
                return os.sendfile(self._socket.fileno(), descriptor, offset, length)
            except OSError as error:
                if error.errno == errno.EIO:
                    raise
                if error.errno not in _NO_SENDFILE:
                    raise ChannelError(_said(error)) from error
                self._maps = False
        content = os.pread(descriptor, length, offset)
        self.send(content)
        return len(content)

    def receive(self, length: int) -> bytes:
        """Raises ChannelError."""
        found = bytearray(length)
        self.receive_into(memoryview(found))
        return bytes(found)

    def receive_into(self, into: memoryview) -> None:
        """All of it. Raises ChannelError."""
        while into:
            try:
                came = self._socket.recv_into(into, 0, socket.MSG_WAITALL)
            except OSError as error:
                raise ChannelError(_said(error)) from error
            if not came:
                raise LeftError("the other side has left")
            into = into[came:]

    def quiet_seconds(self) -> float:
        """So long nothing has come, as the kernel knows, whether or not somebody here listens; 0
        where something lies unread. Any thread.
        """
        try:
            unread = fcntl.ioctl(self._socket, termios.FIONREAD, bytes(4))
            if any(unread):
                return 0.0
            known = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_CAME.size)
            milliseconds: int = _LAST_CAME.unpack(known)[0]
        except (OSError, ValueError, struct.error):  # closed meanwhile, or no TCP
            return float("inf")
        return milliseconds / 1000

    def close(self) -> None:
        """Whoever waits on it wakes, and learns that it is broken."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def greet(self, secret: bytes, mine: Hello, *, came: bool) -> tuple[Hello, bytes]:
        """The other's first message, and the key of all that follows. `came`: this side has made
        the connection, and shows first that it knows the secret: who waits shows nothing to one who
        does not. Raises WireError where the other does not know it, ChannelError.
        """
        self.send(mine.packed())
        theirs = unpack_hello(self.receive(HELLO_BYTES))
        if theirs.node == mine.node:
            raise WireError(f"it says that it is this node, {mine.node}")
        if came:
            self.send(proof(secret, mine, theirs))
        if not proves(self._proof(), proof(secret, theirs, mine)):
            raise WireError("it does not know the secret of this job")
        if not came:
            self.send(proof(secret, mine, theirs))
        return theirs, session_key(secret, mine, theirs)

    def _proof(self) -> bytes:
        try:
            return self.receive(PROOF_BYTES)
        except LeftError as error:
            raise WireError("it has left at once: it has another secret, or is no node") from error


def connected_to(address: Address, seconds: float) -> Channel:
    """Tries until somebody listens there. Raises ChannelError where nobody does in time."""
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        try:
            return Channel(socket.create_connection((address.host, address.port), max(0.1, left)))
        except OSError as error:
            if left <= _AGAIN_SECONDS:
                said = f"nobody answers at {address.host}:{address.port}: {_said(error)}"
                raise ChannelError(said) from error
        time.sleep(_AGAIN_SECONDS)


def _said(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
