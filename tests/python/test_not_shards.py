"""What is not a shard is refused by name: dead links, FIFOs (never opened), sockets, devices.

What an index may not say is in test_shard_index.py.
"""

from __future__ import annotations

import errno
import fileinput
import io
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import NOBODY
from shard_support import names_of, write, write_index

from shardahead.checkpoint import shards
from shardahead.checkpoint.shards import resolve_shards


def each_way(path: Path) -> Iterator[Any]:
    """`path` alone, in a list and in an index."""
    yield path
    yield [path]
    yield write_index(path.parent / "test.index.json", path.name)


def test_a_missing_shard(tmp_path: Path) -> None:
    missing = tmp_path / "missing.safetensors"
    for files in each_way(missing):
        with pytest.raises(FileNotFoundError) as caught:
            resolve_shards(files)
        assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, str(missing))


def test_a_dangling_link_in_a_folder_is_a_missing_shard(tmp_path: Path) -> None:
    write(tmp_path / "model-1.safetensors")
    os.symlink("../blobs/none", tmp_path / "model-2.safetensors")
    with pytest.raises(FileNotFoundError) as caught:
        resolve_shards(tmp_path)
    assert caught.value.filename == str(tmp_path / "model-2.safetensors")


def test_a_loop_of_links(tmp_path: Path) -> None:
    loop = tmp_path / "loop.safetensors"
    os.symlink(loop.name, loop)
    for files in (*each_way(loop), tmp_path):
        with pytest.raises(OSError, match="loop") as caught:
            resolve_shards(files)
        assert (caught.value.errno, caught.value.filename) == (errno.ELOOP, str(loop))


def test_a_loop_of_links_that_is_not_a_shard_does_no_harm(tmp_path: Path) -> None:
    os.symlink("loop", tmp_path / "loop")
    write(tmp_path / "a.safetensors")
    assert names_of(resolve_shards(tmp_path)) == ["a.safetensors"]


def test_a_fifo_is_never_opened(tmp_path: Path) -> None:
    # Were it opened, this test would hang: nobody writes into the FIFO.
    fifo = tmp_path / "fifo.safetensors"
    os.mkfifo(fifo)
    os.mkfifo(tmp_path / "fifo.index.json")
    for files in (*each_way(fifo), tmp_path, tmp_path / "fifo.index.json"):
        with pytest.raises(OSError, match="not a regular file: FIFO") as caught:
            resolve_shards(files)
        assert caught.value.errno == errno.EINVAL
        assert caught.value.filename.startswith(str(tmp_path / "fifo"))


def test_an_index_that_turns_into_a_fifo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fifo = tmp_path / "fifo.index.json"
    os.mkfifo(fifo)
    regular = shards._status(str(write(tmp_path / "a")))
    monkeypatch.setattr(shards, "_status", lambda _: regular)
    with pytest.raises(OSError, match="not a regular file: FIFO"):
        resolve_shards(fifo)


def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is limited to 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.bin")
        for files in each_way(tmp_path / "socket.bin"):
            with pytest.raises(OSError, match="not a regular file: socket") as caught:
                resolve_shards(files)
            assert caught.value.errno == errno.EINVAL


def test_a_device() -> None:
    with pytest.raises(OSError, match="not a regular file: character device") as caught:
        resolve_shards("/dev/null")
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, "/dev/null")


def test_a_folder_that_may_not_be_searched(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    path = write(locked / "a.safetensors")
    locked.chmod(0o000)
    try:
        # root may search any folder, hence a child that is not root.
        child = os.fork()
        if child == 0:
            if os.getuid() == 0:
                os.setuid(NOBODY)
            try:
                resolve_shards([path])
            except PermissionError as error:
                os._exit(0 if error.filename == str(path) else 2)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        locked.chmod(0o700)


@pytest.mark.parametrize("wrong", [None, 3, 3.5, object()])
def test_wrong_types(wrong: Any) -> None:
    with pytest.raises(TypeError, match="files must be a path"):
        resolve_shards(wrong)
    with pytest.raises(TypeError, match=r"files\[0\] must be a path"):
        resolve_shards([wrong])


def test_what_can_be_iterated_over_and_is_no_list_of_paths(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"secret bytes\nmore of them\n")
    with open(path) as text, open(path, "rb") as raw, fileinput.input(path) as lines:
        files: list[Any] = [text, raw, lines, io.BytesIO(b"secret\n"), io.StringIO("secret\n")]
        for wrong in files:
            with pytest.raises(TypeError, match="files must be a path") as caught:
                resolve_shards(wrong)
            assert type(wrong).__name__ in str(caught.value)
            assert "secret" not in str(caught.value)
        with pytest.raises(TypeError, match=r"files\[1\] must be a path, not BufferedReader"):
            resolve_shards([path, raw])  # type: ignore[list-item]
    others: list[Any] = [{"a": 1}, bytearray(b"secret"), memoryview(b"secret"), [b"a", 3], range(3)]
    for wrong in others:
        with pytest.raises(TypeError, match="must be a path") as caught:
            resolve_shards(wrong)
        assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match="NUL") as refused:
        resolve_shards(b"\0" + b"x" * 10**6)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("path", ["a\0b", b"a\0b"])
def test_a_nul_in_a_path(path: Any) -> None:
    with pytest.raises(ValueError, match="files has a NUL"):
        resolve_shards(path)
    with pytest.raises(ValueError, match=r"files\[1\] has a NUL"):
        resolve_shards(["a", path])
