"""Addresses: where the nodes of a job meet, and where a node listens for the others. Any thread."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Address:
    host: str
    port: int


def parse_address(text: str) -> Address:
    """HOST:PORT, [HOST]:PORT of an IPv6 address. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not colon or not port.isascii() or not port.isdigit():
        raise ValueError(f"not a HOST:PORT: {text!r}")
    if not 1 <= int(port) <= 65535:
        raise ValueError(f"not a port: {port}")
    return Address(host, int(port))


def own_address(address: Address) -> str:
    """The address of this node on the way to the rendezvous. Raises OSError where there is none."""
    family, _, _, _, target = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_DGRAM
    )[0]
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        asked.connect(target)  # sends nothing
        found: str = asked.getsockname()[0]
        return found


def listening_socket(address: Address) -> socket.socket | None:
    """One that listens at this very address, at any port where that is 0; None where it is another
    node's, or taken: then somebody listens there. Raises OSError as getaddrinfo does.
    """
    family, kind, protocol, _, target = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM
    )[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(target)
        made.listen(1024)
    except OSError as error:
        made.close()
        if error.errno in (errno.EADDRNOTAVAIL, errno.EADDRINUSE):
            return None
        raise
    return made
