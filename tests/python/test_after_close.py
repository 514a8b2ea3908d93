"""`warm` on mounts whose pages go with the last close() of a file: what it says is what the next
process finds.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import MIB, MakeMount, write_file

from shardahead.command.after_close import deferred_seconds
from shardahead.node.mounts import mount_of

WARM = [sys.executable, "-m", "shardahead", "warm", "--quiet"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for i in range(5):
        write_file(tmp_path / "source" / f"{i}.bin", MIB + i)
    return tmp_path / "source"


def warm(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*WARM, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_what_goes_with_the_last_close_is_not_warm(source: Path, make_mount: MakeMount) -> None:
    mount = make_mount(source, empty_after_close_ms=0)
    ended = warm(mount.mountpoint)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "once its files were closed 0 B of 1.00 MiB of '0.bin' were left" in ended.stderr
    assert f"{mount.mountpoint} (fuse.slowfs) does not keep pages" in ended.stderr
    assert "the last close() of a file empties its page cache" in ended.stderr
    assert "--keep holds them open" in ended.stderr
    mount.reset()
    again = warm("--json", mount.mountpoint)
    assert again.returncode == 1
    assert not json.loads(again.stdout)["complete"]
    assert mount.counters().bytes_served >= 5 * MIB


def test_a_mount_that_keeps_them_is_warm(source: Path, make_mount: MakeMount) -> None:
    mount = make_mount(source)
    ended = warm(mount.mountpoint)
    assert (ended.returncode, ended.stderr) == (0, "")
    mount.reset()
    assert warm(mount.mountpoint).returncode == 0
    assert mount.counters().bytes_served == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_without_proc_nothing_is_known_of_it(source: Path, make_mount: MakeMount) -> None:
    mount = make_mount(source, empty_after_close_ms=0)
    hidden = f"mount -t tmpfs none /proc && exec {shlex.join([*WARM, str(mount.mountpoint)])}"
    ended = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hidden],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 0, ended.stderr


def test_what_another_holds_open_stays(source: Path, make_mount: MakeMount) -> None:
    mount = make_mount(source, empty_after_close_ms=0)
    with (
        open(mount.mountpoint / "0.bin", "rb"),
        open(mount.mountpoint / "2.bin", "rb"),
        open(mount.mountpoint / "4.bin", "rb"),
    ):
        assert warm(mount.mountpoint).returncode == 0


@pytest.mark.parametrize(
    ("option", "seconds"),
    [
        ("closetimeo=1", 1.3),
        ("closetimeo=0", 0),
        ("closetimeo=x", 0),
        ("rw", 0),
        ("closetimeo=99", 5),
    ],
)
def test_smb_says_how_long_a_file_stays_open(option: str, seconds: float) -> None:

    mount = replace(mount_of("/proc"), options=("rw", option))
    assert deferred_seconds(mount) == pytest.approx(seconds)
