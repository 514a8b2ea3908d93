"""Which files, in which order: paths, lists, folders, and the index of a folder.

What is refused is in test_not_shards.py, what an index may say in test_shard_index.py, the order of
names in test_natural_order.py.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shard_support import names_of, write, write_index

from shardahead.checkpoint.shards import Shard, resolve_checkpoint, resolve_shards

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


def test_what_a_message_calls_a_checkpoint(tmp_path: Path) -> None:
    names = [f"m-{i}.safetensors" for i in range(8)]
    for name in names:
        write(tmp_path / name)
    shown = ", ".join(map(repr, names[:6]))
    assert resolve_checkpoint(tmp_path).called == f"{shown} and 2 more"
    write_index(tmp_path / "m.safetensors.index.json", *names)
    assert resolve_checkpoint(tmp_path).called == "'m.safetensors.index.json'"


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
