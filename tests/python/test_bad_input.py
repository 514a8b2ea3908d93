"""Wrong arguments and unfit files are refused before any thread starts."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    MIB,
    NOBODY,
    is_resident,
    make_cold,
    run_python,
    thread_ids,
    write_file,
)

from shardahead import LocalTopology, prefetch_files
from shardahead.checkpoint.shards import Shard
from shardahead.prefetch.options import resolve_options
from shardahead.prefetch.start import start_prefetch


def special(folder: Path, kind: str) -> Path:
    path = folder / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        return Path("/dev/zero")
    return path


@pytest.mark.parametrize(
    ("kind", "error", "code"),
    [
        ("missing", FileNotFoundError, errno.ENOENT),
        ("folder", IsADirectoryError, errno.EISDIR),
        ("fifo", OSError, errno.EINVAL),
        ("socket", OSError, errno.EINVAL),
        ("device", OSError, errno.EINVAL),
    ],
)
def test_what_is_no_file_is_refused_before_any_thread_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, error: type[OSError], code: int
) -> None:
    # Were the FIFO opened for reading, this would hang: nobody writes to it.
    monkeypatch.chdir(tmp_path)  # the path of a socket is limited to 107 bytes
    good = write_file(tmp_path / "a", MIB)
    bad = special(Path(), kind)
    before = thread_ids()
    with pytest.raises(error) as caught:
        prefetch_files([good, bad])
    assert (caught.value.errno, caught.value.filename) == (code, str(bad))
    # The same where a file turns into something else after it was looked at.
    with pytest.raises(error) as caught:
        start_prefetch(
            [Shard(str(path), MIB, 0, 0) for path in (good, bad)],
            resolve_options(),
            LocalTopology(0, 1, "test"),
            spans=[None, None],
            consumer=False,
        )
    assert (caught.value.errno, caught.value.filename) == (code, str(bad))
    assert thread_ids() == before


AS_NOBODY = f"""
import json, os, sys, shardahead
path = sys.argv[1]
os.setuid({NOBODY}) if os.getuid() == 0 else None
before = os.listdir("/proc/self/task")
try:
    with shardahead.prefetch_files([path]) as handle:
        handle.wait()
    print(json.dumps(handle.report().to_dict()))
except PermissionError as error:
    threads = os.listdir("/proc/self/task") == before
    print(json.dumps([type(error).__name__, error.errno, error.filename, threads]))
"""


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", 10)
    path.chmod(0)
    found = run_python(AS_NOBODY, path)
    assert found == ["PermissionError", errno.EACCES, str(path), True]


def test_a_file_of_somebody_else_is_brought_in_all_the_same(open_folder: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    path = write_file(open_folder / "a", 3 * MIB)
    path.chmod(0o444)
    make_cold(path)
    report = run_python(AS_NOBODY, path)
    assert report["complete"]
    assert report["planned_bytes"] == 3 * MIB
    assert is_resident(path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"local_rank": 2, "local_size": 2}, ValueError, "local_rank .*not 2"),
        ({"local_rank": -1, "local_size": 2}, ValueError, "local_rank .*not -1"),
        ({"local_rank": 0, "local_size": 0}, ValueError, "local_size .*not 0"),
        ({"local_rank": 1}, ValueError, "local_size is missing"),
        ({"local_rank": 0.0, "local_size": 1}, TypeError, "local_rank .*not 0.0"),
        ({"strategy": "magic"}, ValueError, "strategy .*auto.*not 'magic'"),
        ({"partition": "magic"}, ValueError, "partition .*block.*not 'magic'"),
        ({"threads": 0}, ValueError, "threads .*not 0"),
        ({"threads": True}, TypeError, "threads .*not True"),
        ({"block_size": 4095}, ValueError, "block_size .*not 4095"),
        ({"block_size": 16.0}, TypeError, "block_size .*not 16.0"),
        ({"window_bytes": -1}, ValueError, "window_bytes .*not -1"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(
    files: list[Path], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    before = thread_ids()
    with pytest.raises(error, match=message):
        prefetch_files(files, **options)
    assert thread_ids() == before


def test_no_files_and_a_folder_without_any(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="files is empty"):
        prefetch_files([])
    with pytest.raises(ValueError, match=str(tmp_path)):
        prefetch_files(tmp_path)
