"""Filesystems in an image on the slow filesystem, read by a program or by the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kinds import Behind, Client, Kind
from loop_device import attached
from stage import AT, DATA, SLOW, WORK, Backend, Stage, command, unmount

_FOLDER, _NAME = "image", "checkpoint.image"
_IMAGE = f"{WORK}/{_FOLDER}/{_NAME}"
_SLOW_IMAGE = f"{SLOW}/{_NAME}"
_SPARE_BYTES = 350 * 2**20  # xfs is not made smaller than 300 MiB
Fill = Callable[[Stage, Path], None]


def _image(*maker: str, fill: Fill | None = None, room: bool = True) -> Behind:
    """What `maker` makes. `room`: of an empty file that is large enough. `fill` copies the
    checkpoint where the maker does not.
    """

    @contextmanager
    def behind(stage: Stage) -> Iterator[Backend]:
        stage.fresh(f"{WORK}/{_FOLDER}")
        image = stage.outside(_IMAGE)
        if room:
            with open(image, "wb") as made:
                made.truncate(stage.data_bytes() * 5 // 4 + _SPARE_BYTES)
        stage.run(*maker)
        if fill is not None:
            fill(stage, image)
        with stage.slow(image.parent) as backend:
            yield backend

    return behind


def _fill_by_kernel(kind: str, options: str = "rw") -> Fill:
    def fill(stage: Stage, image: Path) -> None:
        with _loop_mount(stage, image, kind, options, read_only=False):
            stage.copy_checkpoint_to(stage.mountpoint)

    return fill


def _fill_by_ntfs_3g(stage: Stage, image: Path) -> None:
    with (
        attached(image, read_only=False) as device,
        stage.mounted(["ntfs-3g", "-o", "no_detach", device, AT]),
    ):
        stage.copy_checkpoint_to(stage.mountpoint)


@contextmanager
def _loop_mount(
    stage: Stage, image: Path, kind: str, options: str, *, read_only: bool = True
) -> Iterator[None]:
    with attached(image, read_only=read_only) as device:
        command("mount", "-i", "-t", kind, "-o", options, device, stage.mountpoint)
        try:
            yield
        finally:
            unmount(stage.mountpoint)


def _on_loop(kind: str, options: str = "ro") -> Client:
    return lambda stage: _loop_mount(stage, stage.outside(_SLOW_IMAGE), kind, options)


def _program(*words: str) -> Client:
    """A program that reads the image as a file."""
    return lambda stage: stage.mounted(words)


def _program_on_loop(*words: str) -> Client:
    """A program that reads a block device: it comes before the place of the mount."""

    @contextmanager
    def client(stage: Stage) -> Iterator[None]:
        with (
            attached(stage.outside(_SLOW_IMAGE)) as device,
            stage.mounted([*words, device, AT]),
        ):
            yield

    return client


_EXT4 = _image("mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "^has_journal", "-d", DATA, _IMAGE)
_SQUASHFS = _image(
    *("mksquashfs", DATA, _IMAGE, "-comp", "zstd", "-quiet", "-no-progress"), room=False
)
_EROFS = _image("mkfs.erofs", "--quiet", _IMAGE, DATA, room=False)
_NTFS = _image("mkntfs", "-q", "-F", "-f", _IMAGE, fill=_fill_by_ntfs_3g)
_XFS = _image("mkfs.xfs", "-q", "-f", _IMAGE, fill=_fill_by_kernel("xfs"))
_BTRFS = _image(
    *("mkfs.btrfs", "-q", "-f", _IMAGE), fill=_fill_by_kernel("btrfs", "compress-force=zstd:1")
)
_SQUASH_PACKAGES = ("squashfuse", "squashfs-tools")

KINDS = (
    Kind(
        "squashfuse",
        _SQUASH_PACKAGES,
        _SQUASHFS,
        _program("squashfuse", "-f", "-o", "ro,allow_other", _SLOW_IMAGE, AT),
    ),
    Kind(
        "squashfuse_ll",
        _SQUASH_PACKAGES,
        _SQUASHFS,
        _program("squashfuse_ll", "-f", "-o", "ro,allow_other", _SLOW_IMAGE, AT),
    ),
    Kind(
        "ntfs-3g",
        ("ntfs-3g",),
        _NTFS,
        _program_on_loop("ntfs-3g", "-o", "ro,allow_other,no_detach"),
        loop=True,
    ),
    Kind(
        "fuse2fs",
        ("fuse2fs", "e2fsprogs"),
        _EXT4,
        # A file that it may not write to it refuses, a device it does not.
        _program_on_loop("fuse2fs", "-f", "-o", "ro,fakeroot,norecovery,allow_other"),
        loop=True,
    ),
    Kind(
        "erofsfuse",
        ("erofsfuse", "erofs-utils"),
        _EROFS,
        _program("erofsfuse", "-f", _SLOW_IMAGE, AT),
    ),
    Kind("loop-ext4", ("e2fsprogs",), _EXT4, _on_loop("ext4", "ro,noload"), True, "ext4"),
    Kind("loop-xfs", ("xfsprogs",), _XFS, _on_loop("xfs", "ro,norecovery"), True, "xfs"),
    Kind("loop-btrfs", ("btrfs-progs",), _BTRFS, _on_loop("btrfs"), True, "btrfs"),
    Kind("loop-erofs", ("erofs-utils",), _EROFS, _on_loop("erofs"), True, "erofs"),
    Kind("loop-squashfs", ("squashfs-tools",), _SQUASHFS, _on_loop("squashfs"), True, "squashfs"),
)
