"""The queue of a FUSE mount, as fusectl has it: of the kernel, and of folders that stand for it."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import (
    MIB,
    NOBODY,
    MakeMount,
    eventually,
    finish,
    run_python,
    start_python,
    write_file,
)
from doctor_support import DISK, FUSE, NFS, told_queue
from kernel_support import mounted

from shardahead import mount_of
from shardahead.node.fuse_queue import FuseQueue, fuse_queue, waiting_requests

CONNECTIONS = "sys/fs/fuse/connections"

ASK_AS_NOBODY = f"""
import json, os, sys
from pathlib import Path
from shardahead import mount_of
from shardahead.node.fuse_queue import fuse_queue
mount = mount_of(sys.argv[1])
os.setgid({NOBODY})
os.setuid({NOBODY})
queue = fuse_queue(mount, Path(sys.argv[2]))
print(json.dumps([queue.max_background, queue.reason]))
"""
# In a mount namespace of its own, where fusectl is where it belongs.
DOCTOR = """
import ctypes, sys
import shardahead.command.cli
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x00020000) or libc.mount(b"none", b"/", None, 0x44000, None) or libc.mount(
    b"fusectl", b"/sys/fs/fuse/connections", b"fusectl", 0, None
):
    print("null")
    sys.exit(0)
sys.exit(shardahead.command.cli.main(["doctor", "--json", sys.argv[1]]))
"""


@pytest.fixture
def fusectl(open_folder: Path) -> Path:
    """A folder below which fusectl may be mounted where it belongs."""
    (open_folder / CONNECTIONS).mkdir(parents=True)
    return open_folder


@pytest.mark.parametrize(("most", "threshold"), [(12, 9), (64, 48)])
def test_the_queue_of_a_mount(
    tmp_path: Path, make_mount: MakeMount, fusectl: Path, most: int, threshold: int
) -> None:
    write_file(tmp_path / "source" / "a.safetensors", MIB)
    slow = make_mount(tmp_path / "source", max_background=most, congestion_threshold=threshold)
    mount = mount_of(slow.mountpoint)
    with ExitStack() as stack:
        mounted(stack, fusectl / CONNECTIONS, "-t", "fusectl", "none")
        queue = fuse_queue(mount, fusectl)
        assert queue is not None
        assert (queue.max_background, queue.congestion_threshold) == (most, threshold)
        assert queue.reason == ""
        waiting = waiting_requests(queue, fusectl)
        # The end of the mount's own first requests is not waited for.
        eventually(lambda: waiting() == 0, "something waits")
        if os.geteuid() == 0:
            told, reason = run_python(ASK_AS_NOBODY, slow.mountpoint, fusectl)
            assert told is None
            assert "only root" in reason


def test_where_fusectl_is_not_mounted(fusectl: Path) -> None:
    queue = fuse_queue(FUSE, fusectl)
    assert queue is not None
    assert queue.max_background is None
    assert "mount -t fusectl fusectl /sys/fs/fuse/connections" in queue.reason
    assert waiting_requests(queue, fusectl)() is None


def test_where_the_connection_is_not_seen(tmp_path: Path) -> None:
    told_queue(tmp_path, "0:99", 12, 9)
    queue = fuse_queue(FUSE, tmp_path)
    assert queue is not None
    assert "not among the connections" in queue.reason


def test_a_disk_through_fuse_is_named_by_its_whole_number(tmp_path: Path) -> None:
    told_queue(tmp_path, f"0:{8 << 20 | 17}", 12, 9)
    disk = replace(FUSE, type="fuseblk", source="/dev/sdb1", device="8:17")
    assert fuse_queue(disk, tmp_path) == FuseQueue(
        f"/{CONNECTIONS}/{8 << 20 | 17}", max_background=12, congestion_threshold=9
    )


def test_what_is_no_number(tmp_path: Path) -> None:
    told_queue(tmp_path, "0:53", 12, 9)
    path = tmp_path / CONNECTIONS / "53"
    queue = fuse_queue(FUSE, tmp_path)
    (path / "waiting").write_text("many")
    assert waiting_requests(queue, tmp_path)() is None
    (path / "max_background").write_text("many")
    queue = fuse_queue(FUSE, tmp_path)
    assert queue is not None
    assert queue.reason == "not a number"


def test_other_filesystems_have_none(tmp_path: Path) -> None:
    assert fuse_queue(NFS, tmp_path) is None
    assert fuse_queue(DISK, tmp_path) is None
    assert fuse_queue(replace(FUSE, type="virtiofs"), tmp_path) is None
    assert waiting_requests(None)() is None


def test_doctor_counts_the_requests_that_wait(tmp_path: Path, make_mount: MakeMount) -> None:
    write_file(tmp_path / "source" / "a.safetensors", 48 * MIB)
    slow = make_mount(tmp_path / "source", round_trip_ms=20, request_kib=128, max_background=12)
    done = finish(start_python(DOCTOR, slow.mountpoint))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    if document is None:
        pytest.skip("fusectl cannot be mounted here")
    (found,) = document["mounts"]
    assert found["fuse_queue"]["max_background"] == 12
    assert found["measurement"]["peak_requests"] > 0
