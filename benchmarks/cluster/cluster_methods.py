"""The ways in which the nodes come by the checkpoint: which command each node runs, and what it
waits for. Starts nothing itself. One thread.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: The checkpoint's folder in each mount, and so the name of what is to become of it.
NAME = "model"
_PORT = 29400
_MODULE = "models"


@dataclass(frozen=True)
class Place:
    """Where node number i reads from, and into which folder; the address of node 0."""

    nodes: int
    mounts: tuple[Path, ...]
    locals: tuple[Path, ...]
    first_address: str
    scratch: Path


@dataclass(frozen=True)
class Method:
    """command: of a node. server: of node 0, that runs beside it all the time. first: node 0 is
    whole before the others begin.
    """

    name: str
    command: Callable[[Place, int], list[str]]
    server: Callable[[Place], list[str]] | None = None
    first: bool = False
    needs: str = ""

    def missing(self) -> str:
        """Why it cannot be had here, or nothing."""
        return f"no {self.needs}" if self.needs and shutil.which(self.needs) is None else ""


def _stage(place: Place, node: int) -> list[str]:
    words = [sys.executable, "-m", "shardahead", "stage", "--json"]
    return [*words, str(place.mounts[node] / NAME), "--to", str(place.locals[node])]


def _exchange(place: Place, node: int) -> list[str]:
    meet = ["--rendezvous", f"{place.first_address}:{_PORT}", "--nodes", str(place.nodes)]
    return [*_stage(place, node), *meet, "--node-rank", str(node)]


def _broadcast(place: Place, node: int) -> list[str]:
    folders = [str(place.mounts[node] / NAME), str(place.locals[node] / NAME)]
    address = f"tcp://{place.first_address}:{_PORT}"
    return [
        *(sys.executable, str(HERE / "broadcast_rank.py"), *folders),
        *(address, str(node), str(place.nodes)),
    ]


def _rsync(place: Place, node: int) -> list[str]:
    if node == 0:
        return _stage(place, node)
    whole = place.locals[node] / NAME
    making = whole.with_name(f".{NAME}.making")
    source = f"rsync://{place.first_address}:{_PORT}/{_MODULE}/{NAME}/"
    copy = ["rsync", "-r", "--whole-file", "--inplace", source, f"{making}/"]
    return ["sh", "-c", f"{shlex.join(copy)} && {shlex.join(['mv', str(making), str(whole)])}"]


def _rsync_server(place: Place) -> list[str]:
    config = place.scratch / "rsyncd.conf"
    settings = (
        "use chroot = no",
        "uid = 0",
        "gid = 0",
        f"[{_MODULE}]",
        f"path = {place.locals[0]}",
    )
    config.write_text("\n".join(settings) + "\n")
    return ["rsync", "--daemon", "--no-detach", f"--port={_PORT}", f"--config={config}"]


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("alone", _stage),
        Method("exchange", _exchange),
        Method("broadcast", _broadcast),
        Method("rsync", _rsync, server=_rsync_server, first=True, needs="rsync"),
    )
}
#: Those that are to bring whole nodes whatever happens to another.
OWN = ("alone", "exchange")
