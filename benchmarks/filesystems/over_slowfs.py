"""Filesystems that pass on the files of another, which is the slow one or sshfs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kinds import Behind, Client, Kind
from over_wire import SSH_PACKAGES, ssh_server, sshfs
from stage import AT, SLOW, WORK, Backend, Stage, command, unmount

_BELOW, _LOWEST = "/mnt/below", "/mnt/lowest"
_CIPHER, _PASSWORD = "cipher", "/tmp/gocryptfs-password"


def _slow(**options: Any) -> Behind:
    return lambda stage: stage.slow(stage.data, **options)


def _mounted(*words: str) -> Client:
    return lambda stage: stage.mounted(words)


@contextmanager
def _overlay(stage: Stage, lower: str = SLOW) -> Iterator[None]:
    # A read-only overlay wants two layers.
    layers = f"{stage.outside(lower)}:{stage.outside(stage.fresh(_LOWEST))}"
    command("mount", "-t", "overlay", "-o", f"lowerdir={layers}", "overlay", stage.mountpoint)
    try:
        yield
    finally:
        unmount(stage.mountpoint)


@contextmanager
def _overlay_of_sshfs(stage: Stage) -> Iterator[None]:
    with sshfs(at=stage.fresh(_BELOW))(stage), _overlay(stage, _BELOW):
        yield


@contextmanager
def _encrypted(stage: Stage) -> Iterator[Backend]:
    """The slow filesystem on what gocryptfs has made of the checkpoint."""
    cipher = f"{WORK}/{_CIPHER}"
    stage.fresh(cipher)
    stage.outside(_PASSWORD).write_text("of this run\n")
    stage.run("gocryptfs", "-init", "-q", "-scryptn", "10", "-passfile", _PASSWORD, cipher)
    with stage.mounted([*_GOCRYPTFS, cipher, AT]):
        stage.copy_checkpoint_to(stage.mountpoint)
    with stage.slow(stage.work / _CIPHER) as backend:
        yield backend


_GOCRYPTFS = ("gocryptfs", "-fg", "-q", "-allow_other", "-passfile", _PASSWORD)

KINDS = (
    Kind("mergerfs", ("mergerfs",), _slow(), _mounted("mergerfs", "-f", "-o", "ro", SLOW, AT)),
    Kind(
        "mergerfs-auto_full",
        ("mergerfs",),
        _slow(),
        _mounted("mergerfs", "-f", "-o", "ro,cache.files=auto-full", SLOW, AT),
    ),
    Kind("bindfs", ("bindfs",), _slow(), _mounted("bindfs", "-f", "-o", "ro", SLOW, AT)),
    Kind(
        "bindfs-kernel_cache",
        ("bindfs",),
        _slow(),
        _mounted("bindfs", "-f", "-o", "ro,kernel_cache", SLOW, AT),
    ),
    Kind(
        "fuse-overlayfs",
        ("fuse-overlayfs",),
        _slow(),
        _mounted("fuse-overlayfs", "-f", "-o", f"lowerdir={SLOW}", AT),
    ),
    Kind("gocryptfs", ("gocryptfs",), _encrypted, _mounted(*_GOCRYPTFS, "-ro", SLOW, AT)),
    Kind("overlay", (), _slow(direct_io=False), _overlay, kernel="overlay"),
    Kind(
        "overlay-no_keep_cache",
        (),
        _slow(direct_io=False, keep_cache=False),
        _overlay,
        kernel="overlay",
    ),
    Kind("overlay-sshfs", SSH_PACKAGES, ssh_server, _overlay_of_sshfs, wire=True, kernel="overlay"),
)
