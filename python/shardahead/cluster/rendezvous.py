"""Where the nodes of a job meet: a store of torch.distributed at one address, of which one node is
the host. What is written there is who takes part, and who is gone; no bytes of a checkpoint.

The store asks nobody who he is: what it says decides who reads what, never what is believed of a
block. Needs torch. One thread at a time, unless it says otherwise.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_PREFIX = "shardahead/1"


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
    """One that listens at this very address; None where it is another node's, or taken: then
    somebody listens there. Raises OSError as getaddrinfo does.
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


def open_store(address: Address, seconds: float) -> Store:
    """The store at `address`, of which this node is the host where the address is its own. Raises
    RuntimeError or OSError where nobody answers in time.
    """
    from torch._C._distributed_c10d import TCPStore

    listening = listening_socket(address)
    if listening is None:
        return store_of_its_own(address, seconds)
    common: dict[str, Any] = {"timeout": timedelta(seconds=seconds), "wait_for_workers": False}
    return TCPStore(
        address.host,
        address.port,
        None,
        True,
        master_listen_fd=listening.detach(),
        **common,
    )


def store_of_its_own(address: Address, seconds: float) -> Store:
    """Another connection to the store: what waits on one holds up all others that use it. Raises as
    `open_store`.
    """
    from torch._C._distributed_c10d import TCPStore

    wait = timedelta(seconds=seconds)
    return TCPStore(address.host, address.port, None, False, timeout=wait, wait_for_workers=False)


class Roll:
    """The roll of a job at its store: who of `nodes` is here, with which version of which
    checkpoint, and who is gone, in an order that is the same for all.
    """

    def __init__(self, store: Store, nodes: int) -> None:
        from torch._C._distributed_c10d import PrefixStore

        self._store = PrefixStore(_PREFIX, store)
        self.nodes = nodes
        self._read = 0

    def arrive(self, node: int | None, version: str) -> int:
        """This node's number, the next one where it has none. Raises ValueError where that is taken
        already, or there are enough; VersionError where the job loads something else.
        """
        if node is None:
            node = self._store.add("arrived", 1) - 1
        if node >= self.nodes:
            raise ValueError(f"node {node} of {self.nodes}: there are enough")
        if self._store.add(f"here/{node}", 1) > 1:
            raise ValueError(f"node {node} has been here before: it goes on alone")
        first = self._store.compare_set("version", "", version).decode()
        if first != version:
            raise VersionError("the first node of the job has another version of the checkpoint")
        return node

    def note_gone(self, node: int) -> None:
        """For all to read. The same node may be noted by several."""
        place = self._store.add("gone", 1) - 1
        self._store.set(f"gone/{place}", str(node))

    def newly_gone(self) -> list[int]:
        """Those that were noted since the last call, in order."""
        found = []
        while self._read < self._store.add("gone", 0):
            key = f"gone/{self._read}"
            if not self._store.check([key]):
                break  # it is about to be written
            text = self._store.get(key)
            self._read += 1
            if text.isdigit() and int(text) < self.nodes:
                found.append(int(text))
        return found


class VersionError(Exception):
    """This node and the job do not load the same."""
