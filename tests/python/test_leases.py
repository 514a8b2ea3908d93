"""A file that another process holds a lease on is waited for, as by plain open(); a FIFO is not."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import KIB, finish, start_python, write_file

from shardahead import prefetch_files, residency
from shardahead.checkpoint.opening import open_regular
from shardahead.checkpoint.safetensors_header import read_header
from shardahead.checkpoint.shards import resolve_shards

# Gives its lease up once it is asked to (argv[2] "1"), and says that it was.
HOLDER = """
import fcntl, os, signal, sys, time
descriptor = os.open(sys.argv[1], os.O_RDWR)
def asked(*_):
    print("asked", flush=True)
    if sys.argv[2] == "1":
        time.sleep(0.1)  # so that the other is seen to wait
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
signal.signal(signal.SIGIO, asked)
try:
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
except OSError as error:
    print("no lease:", error, flush=True)
print("held", flush=True)
while True:
    signal.pause()
"""


def hold(path: Path, *, gives_up: bool = True) -> subprocess.Popen[str]:
    holder = start_python(HOLDER, path, "1" if gives_up else "0")
    assert holder.stdout is not None
    said = holder.stdout.readline()
    if said != "held\n":
        holder.kill()
        holder.wait()
        pytest.skip(f"{said.strip() or 'the holder of the lease ended'}")
    return holder


def end(holder: subprocess.Popen[str]) -> str:
    holder.kill()
    return holder.communicate()[0]


def write_shard(path: Path) -> Path:
    header = json.dumps({"t": {"dtype": "U8", "shape": [64], "data_offsets": [0, 64]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    return path


def by_core(path: Path) -> object:
    return residency(path)[0].size_bytes


def by_prefetch(path: Path) -> object:
    handle = prefetch_files(path)
    handle.wait()
    assert handle.report().complete
    return handle.report().planned_bytes


def by_header(path: Path) -> object:
    return len(read_header(str(path)).tensors)


def by_links(path: Path) -> object:
    """Two paths of one file, which is found out by a look at it."""
    other = path.with_name("other")
    other.unlink(missing_ok=True)
    other.hardlink_to(path)
    return len(resolve_shards([path, other]))


@pytest.mark.parametrize("load", [by_core, by_prefetch, by_header, by_links])
def test_a_lease_is_waited_for(tmp_path: Path, load: Callable[[Path], object]) -> None:
    path = write_shard(tmp_path / "a.safetensors")
    expected = load(path)
    holder = hold(path)
    try:
        assert load(path) == expected
    finally:
        assert end(holder) == "asked\n"


def test_a_lease_on_an_index_is_waited_for(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"t": shard.name}}))
    holder = hold(index)
    try:
        assert [found.path for found in resolve_shards(tmp_path)] == [str(shard)]
    finally:
        assert end(holder) == "asked\n"


OPEN = """
import sys
from shardahead.checkpoint.opening import open_regular
try:
    open_regular(sys.argv[1])
except KeyboardInterrupt:
    print("interrupted")
"""


def test_control_c_ends_the_wait(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", KIB)
    holder = hold(path, gives_up=False)
    try:
        waiting = start_python(OPEN, path)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "asked\n"
        # Whether it is asleep in open() yet or on the way there.
        waiting.send_signal(signal.SIGINT)
        assert finish(waiting).stdout == "interrupted\n"
    finally:
        end(holder)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="FIFO") as caught:
        open_regular(str(tmp_path / "fifo"))
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, str(tmp_path / "fifo"))
    with pytest.raises(IsADirectoryError):
        open_regular(str(tmp_path))
    with pytest.raises(OSError, match="character device"):
        open_regular("/dev/null")
    with pytest.raises(FileNotFoundError):
        open_regular(str(tmp_path / "missing"))


def test_no_descriptor_is_left_behind(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    path = write_file(tmp_path / "a", KIB)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(OSError, match="FIFO"):
            open_regular(str(tmp_path / "fifo"))
        descriptor, status = open_regular(str(path))
        assert (status.st_size, os.get_blocking(descriptor)) == (KIB, True)
        os.close(descriptor)
    assert os.listdir("/proc/self/fd") == before
