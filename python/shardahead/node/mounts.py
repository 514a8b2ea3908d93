"""On which mount a path lies, and what the kernel tells about it.

The lookup is the core's (csrc/node/mount.h); here is its public form. Reads a few small files of
/proc and /sys, and nothing of the path itself; any thread.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from shardahead import _core
from shardahead.checkpoint.shards import PathLike, Shard


@dataclass(frozen=True)
class Mount:
    """One mount, as this process sees it.

    `mount_class` is where the bytes come from: "network" (from outside this kernel, virtiofs and 9p
    included), "user_space" (FUSE, whatever its server does), "local", "memory", or "unknown": a
    type that is not known by name, or an overlay whose layers cannot be seen from here. An overlay
    is of the class of its slowest layer. `device` is "MAJOR:MINOR", `root` what of the filesystem
    is mounted, `options` those of the mount, then those of the filesystem. `type` is empty where
    the kernel's table does not have the mount.

    `read_ahead_bytes` is how far the kernel reads ahead of a plain reader, `read_ahead_path` the
    file that holds it in KiB; None and "" where that is not known. `request_bytes` is the largest
    read that one request asks for (rsize of NFS, max_read of FUSE), None where it is not known.
    """

    id: int
    type: str
    source: str
    mount_point: str
    root: str
    device: str
    options: tuple[str, ...]
    mount_class: str
    read_ahead_bytes: int | None
    read_ahead_path: str
    request_bytes: int | None
    layers: tuple[MountLayer, ...]

    def option(self, name: str) -> str | None:
        """The value of the option `name=value`; None where there is none."""
        values = [
            option[len(name) + 1 :] for option in self.options if option.startswith(f"{name}=")
        ]
        return values[-1] if values else None


@dataclass(frozen=True)
class MountLayer:
    """A folder that an overlay shows, from the top down; `mount` is where that folder lies, without
    a type where it is not of this mount namespace, as within containers.
    """

    path: str
    upper: bool
    mount: Mount


def folder_below_mount(mount: Mount, paths: Sequence[PathLike]) -> str:
    """Where in the filesystem of `mount` the files lie: the folder that they have in common, once
    their own links are followed, as the mount was found.
    """
    files = [os.path.realpath(os.fsdecode(path)) for path in paths]
    return below_mount(mount, os.path.commonpath([os.path.dirname(file) for file in files]))


def below_mount(mount: Mount, path: str) -> str:
    """Where in the filesystem of `mount` the path lies, links followed; "." is the top of it."""
    inside = os.path.relpath(os.path.realpath(path), mount.mount_point or "/")
    return os.path.normpath(os.path.join(mount.root, inside).lstrip("/"))


def mount_of(path: PathLike) -> Mount:
    """The mount on which `path` lies, be it a file or a folder, once its symlinks are followed.

    Asked by mount id, so that spaces, over-mounts, bind mounts and autofs are told apart. Raises
    OSError with errno and filename where there is no such path, and ValueError for a NUL in it.
    """
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError(f"path has a NUL in it: {path!r}")
    return _public(_core.mount_with_id(_core.mount_id(encoded), ""))


def mounts_of(shards: Sequence[Shard]) -> list[tuple[Mount, list[Shard]]]:
    """The mounts of a checkpoint in the order of their first shard, each with its shards."""
    by_id: dict[int, list[Shard]] = {}
    for shard in shards:
        by_id.setdefault(_core.mount_id(os.fsencode(shard.path)), []).append(shard)
    return [(_public(_core.mount_with_id(i, "")), found) for i, found in by_id.items()]


def memory_types(paths: Sequence[str]) -> dict[str, str]:
    """Of those files that live in memory, which is their storage: the type of filesystem."""
    mounts = mounts_below(paths)
    return {path: mount.type for path, mount in mounts.items() if mount.mount_class == "memory"}


def mounts_below(paths: Sequence[str]) -> dict[str, Mount]:
    """Where each file lies, but for those that are gone: of an overlay the uppermost layer that has
    it.
    """
    mounts: dict[int, Mount] = {}
    found: dict[str, Mount] = {}
    for path in paths:
        try:
            number = _core.mount_id(os.fsencode(path))
        except OSError:  # gone meanwhile
            continue
        if number not in mounts:
            mounts[number] = _public(_core.mount_with_id(number, ""))
        found[path] = _mount_below(mounts[number], path)
    return found


def _mount_below(mount: Mount, path: str) -> Mount:
    """Where the file lies: of an overlay the uppermost layer that has it."""
    inside = below_mount(mount, path)
    for layer in mount.layers:
        below = os.path.join(layer.path, inside)
        if os.path.lexists(below):
            return _mount_below(layer.mount, below)
    return mount


def _public(core: _core.Mount) -> Mount:
    return Mount(
        id=core.id,
        type=core.type,
        source=core.source,
        mount_point=core.mount_point,
        root=core.root,
        device=core.device,
        options=tuple(core.options),
        mount_class=core.mount_class,
        read_ahead_bytes=core.read_ahead_bytes,
        read_ahead_path=core.read_ahead_path,
        request_bytes=core.request_bytes,
        layers=tuple(
            MountLayer(layer.path, layer.upper, _public(layer.mount)) for layer in core.layers
        ),
    )
