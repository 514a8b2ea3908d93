"""The folder in which replicas lie: what they are called there, which is that of a checkpoint, and
how one gets its name and goes again.

    FOLDER/llama/                  a whole one: the checkpoint's files, and the document
    FOLDER/.llama.staging/         one that is being made
    FOLDER/.llama.lock             whoever makes it has this locked

A replica is whole when it has its own name: it is renamed when all of it, and the document, is on
the disk. Any thread.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from shardahead.replica.original import Original
from shardahead.replica.whole_replica import (
    Replica,
    ReplicaError,
    read_replica,
    source_of,
    sync_folder,
)

_STAGING = ".staging"
_MOST_NAME = 100
_HUB_SNAPSHOT = re.compile(r".*/(models--[^/]+)/snapshots/([0-9a-f]{8})[0-9a-f]*")


@dataclass(frozen=True)
class Place:
    """Where the replica of one original lies, or is to lie."""

    folder: str
    name: str

    @property
    def path(self) -> str:
        return os.path.join(self.folder, self.name)

    @property
    def staging(self) -> str:
        return os.path.join(self.folder, f".{self.name}{_STAGING}")

    @property
    def lock(self) -> str:
        return os.path.join(self.folder, f".{self.name}.lock")


def place_of(original: Original, folder: str) -> Place:
    """Under the name of the checkpoint's folder; where another checkpoint has that, with a mark of
    its own behind it. Of a repository in the Hugging Face cache it is the repository's.
    """
    plain = _plain_name(original.root)
    place = Place(folder, plain)
    mark = hashlib.blake2b(os.fsencode(original.root), digest_size=4).hexdigest()
    if _is_taken(place, original.root):
        return Place(folder, f"{plain}-{mark}")
    return place


def _plain_name(root: str) -> str:
    found = _HUB_SNAPSHOT.fullmatch(os.path.abspath(root))
    name = f"{found[1].partition('--')[2]}-{found[2]}" if found else os.path.basename(root)
    name = re.sub(r"[^\w.=+-]", "_", name.lstrip("."))[:_MOST_NAME]
    return name or "checkpoint"


def _is_taken(place: Place, root: str) -> bool:
    """By what is no replica, or a replica of another folder."""
    for path in (place.path, place.staging):
        if not os.path.lexists(path):
            continue
        try:
            source = source_of(path)
        except ReplicaError:
            source = None
        if source != root:
            return True
    return False


def find_replica(original: Original, folder: str) -> Replica | None:
    """The whole replica of this very version in `folder`, unharmed; None where there is none."""
    try:
        replica = read_replica(place_of(original, folder).path)
    except (ReplicaError, OSError):
        return None
    if not replica.is_of(original) or replica.damage() is not None:
        return None
    return replica


@dataclass(frozen=True)
class Listed:
    """What lies in a folder of replicas: `replica` of a whole one, else what is wrong, or how far
    it is.
    """

    place: Place
    source: str
    replica: Replica | None
    state: str
    bytes_on_disk: int


def listed(folder: str) -> Iterator[Listed]:
    """All replicas in `folder`, also those that are being made. Raises OSError where the folder
    cannot be read.
    """
    names = set()
    for name in os.listdir(folder):
        if name.startswith(".") and name.endswith(_STAGING):
            names.add(name[1 : -len(_STAGING)])
        elif not name.startswith("."):
            names.add(name)
    for name in sorted(names):
        place = Place(folder, name)
        yield from _listed(place)


def _listed(place: Place) -> Iterator[Listed]:
    for path in (place.path, place.staging):
        with suppress(ReplicaError, OSError):
            source = source_of(path)
            if source is None:
                continue
            size = _bytes_on_disk(path)
            if path == place.staging:
                yield Listed(place, source, None, "staging", size)
                continue
            try:
                replica = read_replica(path)
            except ReplicaError as error:
                yield Listed(place, source, None, str(error), size)
                continue
            damage = replica.damage()
            yield Listed(place, source, replica, damage or "whole", size)


def _bytes_on_disk(folder: str) -> int:
    total = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(inside, name)).st_blocks * 512
    return total


def remove(place: Place) -> None:
    """The replica, whole or not; whoever has its files open or mapped keeps them. The caller holds
    the lock. Raises ReplicaError where what lies there is none of ours.
    """
    for path in (place.path, place.staging):
        if os.path.lexists(path):
            remove_folder(path)


def remove_folder(path: str) -> None:
    """Raises ReplicaError where it is none of ours."""
    if source_of(path) is None:
        raise ReplicaError(f"{path!r} is no replica: it is left alone")
    # Under another name first: half of a replica must not look like a whole one.
    folder, name = os.path.split(path)
    doomed = os.path.join(folder, f".{name.lstrip('.')}.removed-{os.getpid()}")
    os.rename(path, doomed)
    shutil.rmtree(doomed)


def publish(place: Place) -> None:
    """What was staged is whole, and gets its name; what had it is removed."""
    old = None
    if os.path.lexists(place.path):
        if source_of(place.path) is None:
            raise ReplicaError(f"{place.path!r} is there, and is no replica")
        old = os.path.join(place.folder, f".{place.name}.removed-{os.getpid()}")
        os.rename(place.path, old)
    os.rename(place.staging, place.path)
    sync_folder(place.folder)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
