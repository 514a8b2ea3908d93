"""Indexes that are malformed, mean harm or are large.

Which index counts, and that it gives the order, is in test_shards.py.
"""

from __future__ import annotations

import errno
import os
import random
import re
import tracemalloc
from pathlib import Path

import pytest
from conftest import MakeMount
from shard_support import names_of, write, write_index

from shardahead.checkpoint import shards
from shardahead.checkpoint.shard_index import MAX_INDEX_TENSORS
from shardahead.checkpoint.shards import resolve_checkpoint, resolve_shards


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"\xff\xfe\xfd",
        b"[" * 200_000,
        b"[]",
        b"null",
        b'"weight_map"',
        b"{}",
        b'{"weight_map": null}',
        b'{"weight_map": []}',
        b'{"weight_map": {}}',
        b'{"weight_map": {"a": 1}}',
        b'{"weight_map": {"a": ["a.bin"]}}',
        b'{"weight_map": {"a": ""}}',
        b'{"weight_map": {"a": "a\\u0000.bin"}}',
        b'{"weight_map": {"a": "\\ud800"}}',
    ],
)
def test_a_malformed_index(tmp_path: Path, content: bytes) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_bytes(content)
    for files in (index, tmp_path):
        with pytest.raises(ValueError, match="malformed index") as caught:
            resolve_shards(files)
        assert str(index) in str(caught.value)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../secret.bin", "..", "a/../../secret.bin", "a/..", "//secret.bin"]
)
def test_an_index_that_reaches_out_of_its_folder(tmp_path: Path, name: str) -> None:
    write(tmp_path / "secret.bin")
    folder = tmp_path / "model"
    write(folder / "a" / "b.bin")
    index = write_index(folder / "x.index.json", "a/b.bin", name)
    with pytest.raises(ValueError, match="outside its folder") as caught:
        resolve_shards(index)
    assert str(index) in str(caught.value)
    assert repr(name) in str(caught.value)


def test_names_that_look_like_escapes_and_are_not(tmp_path: Path) -> None:
    names = ["..a.bin", "a..bin", "sub/b.bin", "./c.bin", "back\\..\\slash.bin"]
    for name in names:
        write(tmp_path / name)
    found = resolve_shards(write_index(tmp_path / "x.index.json", *names))
    assert [shard.path for shard in found] == [os.path.join(tmp_path, name) for name in names]


def test_a_folder_in_an_index(tmp_path: Path) -> None:
    write(tmp_path / "sub" / "a.bin")
    for name in ("sub", "sub/", "."):
        with pytest.raises(IsADirectoryError):
            resolve_shards(write_index(tmp_path / "x.index.json", name))


def test_an_index_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.bin")
    index = write_index(tmp_path / "x.index.json", "a.bin")
    monkeypatch.setattr(shards, "MAX_INDEX_BYTES", index.stat().st_size)
    assert names_of(resolve_shards(index)) == ["a.bin"]
    monkeypatch.setattr(shards, "MAX_INDEX_BYTES", index.stat().st_size - 1)
    with pytest.raises(ValueError, match="larger than") as caught:
        resolve_shards(index)
    assert str(index) in str(caught.value)


def test_what_is_too_large_is_refused_before_it_is_read_or_parsed(tmp_path: Path) -> None:
    index = tmp_path / "x.index.json"
    many = b'{"weight_map": {"t": "a.bin"}, "x": [' + b"{}," * (4 * MAX_INDEX_TENSORS) + b"{}]}"
    for content, size, problem in (
        (b"", shards.MAX_INDEX_BYTES + 1, "larger than"),
        (many, len(many), "tensors"),
    ):
        index.write_bytes(content)
        os.truncate(index, size)
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=problem) as caught:
                resolve_shards(index)
            assert tracemalloc.get_traced_memory()[1] < 4 * len(content) + 2**20
        finally:
            tracemalloc.stop()
        assert str(index) in str(caught.value)


def test_an_index_of_many_tensors(tmp_path: Path) -> None:
    write(tmp_path / "model-00001-of-00001.safetensors")
    names = ["model-00001-of-00001.safetensors"] * 200_000
    found = resolve_checkpoint(write_index(tmp_path / "x.index.json", *names))
    assert len(found.owners or ()) == 200_000


def test_a_small_index_takes_little_memory(tmp_path: Path) -> None:
    write(tmp_path / "a.bin")
    index = write_index(tmp_path / "x.index.json", "a.bin")
    tracemalloc.start()
    try:
        resolve_shards(index)
        assert tracemalloc.get_traced_memory()[1] < shards.MAX_INDEX_BYTES // 16
    finally:
        tracemalloc.stop()


def test_a_large_index(tmp_path: Path) -> None:
    names = [f"model-{i:05d}.safetensors" for i in range(200)]
    for name in names:
        write(tmp_path / name)
    order = random.Random(1).sample(names, len(names))
    index = write_index(tmp_path / "model.safetensors.index.json", *(order * 50))
    assert names_of(resolve_shards(index)) == order


def test_an_index_that_cannot_be_read_is_named(tmp_path: Path, make_mount: MakeMount) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_index(source / "model.safetensors.index.json", "a.safetensors")
    mount = make_mount(source)
    mount.eio("model.safetensors.index.json", 0)
    index = mount.mountpoint / "model.safetensors.index.json"
    with pytest.raises(OSError, match=re.escape(str(index))) as found:
        resolve_shards(index)
    assert (found.value.errno, found.value.filename) == (errno.EIO, str(index))
