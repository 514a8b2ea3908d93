"""The filesystems of the matrix by name: what each needs, and how it is brought up.

A kind has a backend, which is up for as long as its row is measured, and a client, which is
mounted anew for each load: so nothing of it is in the page cache.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from stage import Backend, Stage

Behind = Callable[[Stage], AbstractContextManager[Backend]]
Client = Callable[[Stage], AbstractContextManager[None]]


@dataclass(frozen=True)
class Kind:
    """`packages`: whose programs it is made of. `loop`: on a block device. `kernel`: a type that
    the kernel must know. `wire`: a network is between server and client; else the slow filesystem
    is below. `modules`: what another kernel must load, under which the client runs then.
    """

    name: str
    packages: tuple[str, ...]
    behind: Behind
    client: Client
    loop: bool = False
    kernel: str = ""
    wire: bool = False
    modules: tuple[str, ...] = ()


def known_kinds() -> dict[str, Kind]:
    """All of them, in the order of the table."""
    import images
    import over_guest
    import over_slowfs
    import over_wire

    kinds = (*over_wire.KINDS, *over_slowfs.KINDS, *images.KINDS, *over_guest.KINDS)
    return {kind.name: kind for kind in kinds}
