"""Which files, in which order: real folders, links, FIFOs, sockets, and indexes that mean harm."""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardahead import shards
from shardahead.shards import Shard, natural_sort_key, resolve_shards

NOBODY = 65534


def write(path: Path, size: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def write_index(path: Path, *names: Any, **more: Any) -> Path:
    weight_map = {f"tensor.{i}": name for i, name in enumerate(names)}
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map, **more}))
    return path


def names_of(found: list[Shard]) -> list[str]:
    return [os.path.basename(shard.path) for shard in found]


# ---- one path ----


def test_one_file_is_a_shard_whatever_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "weights.anything", 123)
    status = path.stat()
    assert resolve_shards(path) == [Shard(str(path), 123, status.st_dev, status.st_ino)]


@pytest.mark.parametrize("convert", [str, Path, os.fsencode])
def test_each_kind_of_path(tmp_path: Path, convert: Callable[[Path], Any]) -> None:
    path = write(tmp_path / "a.safetensors")
    assert resolve_shards(convert(path))[0].path == str(path)
    assert resolve_shards([convert(path)])[0].path == str(path)
    assert resolve_shards(convert(tmp_path))[0].path == str(path)


def test_a_name_that_is_not_text(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\xfe.safetensors"
    with open(path, "wb"):
        pass
    for files in (path, [path], tmp_path):
        (shard,) = resolve_shards(files)
        assert os.fsencode(shard.path) == path
        assert shard.size_bytes == 0


def test_a_relative_path_stays_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "model" / "a.safetensors")
    write_index(tmp_path / "model" / "x.index.json", "a.safetensors")
    monkeypatch.chdir(tmp_path)
    for files in ("model", "model/a.safetensors", "model/x.index.json", ["model/a.safetensors"]):
        assert [shard.path for shard in resolve_shards(files)] == ["model/a.safetensors"]
    monkeypatch.chdir(tmp_path / "model")
    assert [shard.path for shard in resolve_shards("x.index.json")] == ["a.safetensors"]


def test_a_shard_is_frozen(tmp_path: Path) -> None:
    (shard,) = resolve_shards(write(tmp_path / "a"))
    with pytest.raises(AttributeError):
        shard.path = "b"  # type: ignore[misc]


# ---- lists ----


def test_a_list_is_sorted_naturally_whatever_its_order(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"model-{i}.safetensors", i) for i in (1, 2, 3, 9, 10, 11, 100)]
    for seed in range(5):
        shuffled = random.Random(seed).sample(paths, len(paths))
        assert [s.size_bytes for s in resolve_shards(shuffled)] == [1, 2, 3, 9, 10, 11, 100]
    assert len(resolve_shards(tuple(paths))) == len(paths)
    assert len(resolve_shards(iter(paths))) == len(paths)
    assert len(resolve_shards(set(paths))) == len(paths)


def test_the_folder_counts_in_a_list(tmp_path: Path) -> None:
    late = write(tmp_path / "10" / "a.bin")
    early = write(tmp_path / "2" / "b.bin")
    assert names_of(resolve_shards([late, early])) == ["b.bin", "a.bin"]


@pytest.mark.parametrize("empty", [[], (), iter(())])
def test_an_empty_list(empty: Any) -> None:
    with pytest.raises(ValueError, match="files is empty"):
        resolve_shards(empty)


def test_a_folder_in_a_list(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors")
    with pytest.raises(IsADirectoryError) as caught:
        resolve_shards([tmp_path])
    assert (caught.value.errno, caught.value.filename) == (errno.EISDIR, str(tmp_path))


def test_an_index_in_a_list(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors")
    index = write_index(tmp_path / "model.safetensors.index.json", "a.safetensors")
    with pytest.raises(ValueError, match=r"files\[1\] is an index.*pass it alone"):
        resolve_shards([tmp_path / "a.safetensors", index])


# ---- the same file twice ----


def test_a_file_that_is_named_twice_counts_once_at_its_first_position(tmp_path: Path) -> None:
    first = write(tmp_path / "1.bin", 10)
    os.link(first, tmp_path / "3.bin")
    os.symlink("1.bin", tmp_path / "4.bin")
    second = write(tmp_path / "2.bin", 20)
    links = [tmp_path / "4.bin", tmp_path / "3.bin"]
    assert names_of(resolve_shards([*links, second, first, first])) == ["1.bin", "2.bin"]
    assert names_of(resolve_shards([*links, second])) == ["2.bin", "3.bin"]
    assert names_of(resolve_shards(tmp_path)) == ["1.bin", "2.bin"]
    index = write_index(tmp_path / "x.index.json", "4.bin", "2.bin", "1.bin", "4.bin")
    assert names_of(resolve_shards(index)) == ["4.bin", "2.bin"]


def test_files_with_the_same_content_are_two(tmp_path: Path) -> None:
    assert len(resolve_shards([write(tmp_path / "a"), write(tmp_path / "b")])) == 2


# ---- what is not a shard ----


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


@pytest.mark.parametrize("path", ["a\0b", b"a\0b"])
def test_a_nul_in_a_path(path: Any) -> None:
    with pytest.raises(ValueError, match="files has a NUL"):
        resolve_shards(path)
    with pytest.raises(ValueError, match=r"files\[1\] has a NUL"):
        resolve_shards(["a", path])


# ---- folders ----


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["m-10.safetensors", "m-2.safetensors"], "m-2.safetensors m-10.safetensors"),
        (["a.safetensors", "a.bin", "a.pt", "a.pth", "a.gguf"], "a.safetensors"),
        (["a.bin", "a.pt", "a.pth", "a.gguf"], "a.bin"),
        (["a.pt", "a.pth", "a.gguf"], "a.pt"),
        (["a.pth", "a.gguf"], "a.pth"),
        (["a.gguf", "config.json", "README.md"], "a.gguf"),
        (["a.bin", ".hidden.safetensors"], "a.bin"),
        (["a.bin", "sub/a.safetensors"], "a.bin"),
        (["a.bin", "sub.safetensors/a"], "a.bin"),
        (["a.pt", "training_args.bin", "optimizer.bin", "scheduler.bin"], "a.pt"),
        (
            ["m.pt", "optimizer.pt", "optimizer_1.pt", "scaler.pt", "rng_state_0.pth"],
            "m.pt",
        ),
        (["optimizer-7b.bin", "my_scheduler.bin"], "my_scheduler.bin optimizer-7b.bin"),
    ],
)
def test_a_folder_without_an_index(tmp_path: Path, there: list[str], expected: str) -> None:
    for name in there:
        write(tmp_path / name)
    assert names_of(resolve_shards(tmp_path)) == expected.split()
    assert names_of(resolve_shards(str(tmp_path) + "/")) == expected.split()


@pytest.mark.parametrize("there", [[], ["training_args.bin", "config.json", "sub/a.safetensors"]])
def test_a_folder_without_shards(tmp_path: Path, there: list[str]) -> None:
    for name in there:
        write(tmp_path / name)
    with pytest.raises(ValueError, match="no shards") as caught:
        resolve_shards(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_the_index_of_a_folder_gives_the_order(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors", "extra.safetensors"):
        write(tmp_path / name)
    names = ["b.safetensors", "a.safetensors", "b.safetensors"]
    index = write_index(tmp_path / "model.safetensors.index.json", *names)
    assert names_of(resolve_shards(tmp_path)) == ["b.safetensors", "a.safetensors"]
    assert resolve_shards(index) == resolve_shards(tmp_path)


@pytest.mark.parametrize(
    ("indexes", "expected"),
    [
        (["other.safetensors.index.json"], "b.safetensors"),
        (["other.safetensors.index.json", "model.safetensors.index.json"], "b.safetensors"),
        (["o.safetensors.index.json", "p.safetensors.index.json"], "a.safetensors b.safetensors"),
        ([".model.safetensors.index.json"], "a.safetensors b.safetensors"),
        (["pytorch_model.bin.index.json"], "a.safetensors b.safetensors"),
        (["model.safetensors.index.json.bak"], "a.safetensors b.safetensors"),
    ],
)
def test_which_index(tmp_path: Path, indexes: list[str], expected: str) -> None:
    write(tmp_path / "a.safetensors")
    write(tmp_path / "b.safetensors")
    for name in indexes[:-1]:
        write_index(tmp_path / name, "a.safetensors")
    write_index(tmp_path / indexes[-1], "b.safetensors")
    assert names_of(resolve_shards(tmp_path)) == expected.split()


def test_the_index_of_bin_files(tmp_path: Path) -> None:
    write(tmp_path / "a.bin")
    write(tmp_path / "b.bin")
    write(tmp_path / "c.pt")
    write_index(tmp_path / "pytorch_model.bin.index.json", "b.bin")
    assert names_of(resolve_shards(tmp_path)) == ["b.bin"]


def test_an_index_that_lists_a_missing_shard(tmp_path: Path) -> None:
    write(tmp_path / "model-1.safetensors")
    write_index(
        tmp_path / "model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors"
    )
    with pytest.raises(FileNotFoundError) as caught:
        resolve_shards(tmp_path)
    assert caught.value.errno == errno.ENOENT
    assert caught.value.filename == str(tmp_path / "model-2.safetensors")


def test_a_snapshot_of_the_hugging_face_cache(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for i, name in enumerate(names):
        write(blobs / f"hash{i}", 100 + i)
        os.symlink(f"../../blobs/hash{i}", snapshot / name)
    write_index(blobs / "hashi", *reversed(names))
    os.symlink("../../blobs/hashi", snapshot / "model.safetensors.index.json")
    found = resolve_shards(snapshot)
    assert [shard.path for shard in found] == [str(snapshot / name) for name in reversed(names)]
    assert [shard.size_bytes for shard in found] == [101, 100]
    assert found[0].inode == (blobs / "hash1").stat().st_ino
    assert resolve_shards(snapshot / "model.safetensors.index.json") == found


# ---- malformed and malicious indexes ----


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


# ---- natural order ----


@pytest.mark.parametrize(
    "ordered",
    [
        ["shard", "shard-1", "shard-2", "shard-10", "shard-100"],
        ["shard-01", "shard-1", "shard-02", "shard-2"],
        ["a-1-b-2", "a-1-b-10", "a-2-b-1", "a-10"],
        ["1", "2", "10", "a", "a1", "a1b", "b"],
        ["x0", "x00", "x1"],
        ["x" + "9" * 5000, "x1" + "0" * 5000],
        # Only 0-9 are digits: the rest is ordered by code point.
        ["x\u0661\u0660", "x\u0662"],
        ["x2", "x\u00b2"],
    ],
)
def test_natural_order(ordered: list[str]) -> None:
    for seed in range(5):
        shuffled = random.Random(seed).sample(ordered, len(ordered))
        assert sorted(shuffled, key=natural_sort_key) == ordered


paths = st.text() | st.text("01239aA-_./\u0663\u00b2", max_size=12)


@given(paths, paths, paths)
def test_natural_order_is_total(a: str, b: str, c: str) -> None:
    key_a, key_b, key_c = map(natural_sort_key, (a, b, c))
    assert (key_a == key_b) == (a == b)
    assert (key_a < key_b) + (key_b < key_a) + (a == b) == 1
    if key_a < key_b and key_b < key_c:
        assert key_a < key_c


@given(st.lists(paths), st.randoms())
def test_natural_order_does_not_depend_on_the_order_before(
    entries: list[str], rng: random.Random
) -> None:
    shuffled = rng.sample(entries, len(entries))
    assert sorted(shuffled, key=natural_sort_key) == sorted(entries, key=natural_sort_key)


@given(
    st.text("ab-./\u0663", max_size=4),
    st.integers(0, 10**12),
    st.integers(0, 10**12),
    st.integers(0, 4),
    st.integers(0, 4),
    st.text("ab-./\u0663", max_size=4),
)
def test_natural_order_compares_numbers_by_value(
    before: str, a: int, b: int, zeros_a: int, zeros_b: int, after: str
) -> None:
    path_a = f"{before}{'0' * zeros_a}{a}{after}"
    path_b = f"{before}{'0' * zeros_b}{b}{after}"
    if a != b:
        assert (natural_sort_key(path_a) < natural_sort_key(path_b)) == (a < b)
    else:
        assert (natural_sort_key(path_a) < natural_sort_key(path_b)) == (path_a < path_b)
