"""Loading from the filesystems that this machine can make: each brings in everything, once.

Images on loop devices, an overlay and memory; what cannot be made or mounted here is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import MIB, check_sum, make_cold, write_file

from shardahead import evict, mount_of, prefetch_files, residency
from shardahead.prefetch.options import Strategy

IMAGE_MIB = 320
SIZES = (40 * MIB + 1, 24 * MIB, 3)
# Smaller blocks than pages: a page that was written in part counts as absent to mincore.
MAKE = {"ext4": ["-q", "-F", "-b", "4096"], "xfs": ["-q", "-f"], "btrfs": ["-q", "-f"]}


def command(*words: str | Path) -> None:
    """Runs it; skips with its last words where it fails."""
    done = subprocess.run([os.fspath(word) for word in words], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"{words[0]}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")


@pytest.fixture
def mounts() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def mounted(stack: ExitStack, point: Path, *options: str | Path) -> Path:
    point.mkdir()
    command("mount", *options, point)
    stack.callback(subprocess.run, ["umount", "-l", os.fspath(point)], check=False)
    return point


def image(stack: ExitStack, folder: Path, kind: str) -> Path:
    """The mount point of a new filesystem of this kind."""
    maker = shutil.which(f"mkfs.{kind}", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if maker is None:
        pytest.skip(f"no mkfs.{kind} here")
    file = folder / f"{kind}.image"
    with open(file, "wb") as empty:
        empty.truncate(IMAGE_MIB * MIB)
    command(maker, *MAKE[kind], file)
    return mounted(stack, folder / kind, "-o", "loop", file)


@pytest.mark.parametrize("strategy", ["auto", "fadvise", "pread"])
@pytest.mark.parametrize("kind", [*MAKE, "overlay"])
def test_everything_is_brought_in_once(
    mounts: ExitStack, tmp_path: Path, kind: str, strategy: Strategy
) -> None:
    if kind == "overlay":
        lower = image(mounts, tmp_path, "ext4")
        for i, size in enumerate(SIZES):
            write_file(lower / f"{i}.safetensors", size)
        folder = mounted(
            mounts, tmp_path / "overlay", "-t", "overlay", "-o", f"lowerdir={lower}:{tmp_path}", "o"
        )
    else:
        folder = image(mounts, tmp_path, kind)
        for i, size in enumerate(SIZES):
            write_file(folder / f"{i}.safetensors", size)
    paths = [folder / f"{i}.safetensors" for i in range(len(SIZES))]
    assert mount_of(paths[0]).type == kind
    make_cold(*paths)
    handle = prefetch_files(paths, strategy=strategy)
    handle.wait()
    report = handle.report()
    check_sum(report)
    assert report.complete
    assert [file.resident_bytes for file in residency(paths)] == list(SIZES)


def test_in_memory_there_is_nothing_to_do(mounts: ExitStack, tmp_path: Path) -> None:
    folder = mounted(mounts, tmp_path / "memory", "-t", "tmpfs", "-o", "size=64m", "none")
    path = write_file(folder / "a.safetensors", 8 * MIB)
    handle = prefetch_files(path)
    handle.wait()
    report = handle.report()
    assert report.complete
    assert (report.resident_bytes, report.read_bytes) == (8 * MIB, 0)
    evict([path])
    assert residency([path])[0].resident_bytes == 8 * MIB
