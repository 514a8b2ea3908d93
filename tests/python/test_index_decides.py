"""The index of a checkpoint decides from which shard a tensor comes, and that it comes at all."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import messages
from shard_support import names_of, write, write_index

from shardahead.checkpoint.shards import resolve_checkpoint, resolve_shards

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

import shardahead  # noqa: E402

ITERATORS = ("safetensors_weights_iterator", "buffered_multi_thread_safetensors_weights_iterator")
WAYS: list[dict[str, Any]] = [
    {},
    {"prefetch": False},
    {"mode": "pread"},
    {"names": lambda _name: True},
    {"progress": lambda _progress: None},
]


def save(path: Path, **values: float) -> None:
    tensors = {name.replace("_", "."): torch.full((64,), float(v)) for name, v in values.items()}
    (save_file if path.suffix == ".safetensors" else torch.save)(tensors, path)


def index_of(folder: Path, suffix: str, **shards: str) -> Path:
    weight_map = {name.replace("_", "."): shard + suffix for name, shard in shards.items()}
    name = "model.safetensors" if suffix == ".safetensors" else "pytorch_model.bin"
    path = folder / f"{name}.index.json"
    path.write_text(json.dumps({"weight_map": weight_map}))
    return path


def iterators(suffix: str) -> list[tuple[Callable[..., Any], dict[str, Any]]]:
    if suffix == ".bin":
        return [(shardahead.pt_weights_iterator, way) for way in WAYS[:4]]
    made = [getattr(shardahead, name) for name in ITERATORS]
    return list(itertools.product(made, WAYS))


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_tensor_comes_from_the_shard_that_the_index_names(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path / f"a{suffix}", w_1=1, w_2=2)
    save(tmp_path / f"b{suffix}", w_1=-1, w_3=3, w_4=4)  # a stale w.1, and a w.4 of no one
    index_of(tmp_path, suffix, w_1="a", w_2="a", w_3="b")
    for iterate, way in iterators(suffix):
        caplog.clear()
        found = [(name, float(tensor[0])) for name, tensor in iterate(tmp_path, **way)]
        assert found == [("w.1", 1), ("w.2", 2), ("w.3", 3)], (iterate, way)
        (said,) = [m for m in messages(caplog) if "left out" in m]
        assert "b" + suffix in said
        assert "'w.1'" in said


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_what_the_index_does_not_name_is_left_out_and_said_once(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path / f"a{suffix}", w_1=1, x_1=2, x_2=3)
    index = index_of(tmp_path, suffix, w_1="a")
    for iterate, way in iterators(suffix):
        caplog.clear()
        assert [name for name, _ in iterate(index, **way)] == ["w.1"]
        (said,) = messages(caplog)
        assert "'x.1'" in said
        assert str(index) in said


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_tensor_that_its_shard_does_not_hold(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"a{suffix}", w_1=1)
    save(tmp_path / f"b{suffix}", w_2=2, w_3=3)
    index = index_of(tmp_path, suffix, w_1="a", w_2="b", w_3="a")
    for iterate, way in iterators(suffix):
        with pytest.raises(ValueError, match="does not hold it") as caught:
            list(iterate(tmp_path, **way))
        for part in (str(index), "'w.3'", str(tmp_path / f"a{suffix}")):
            assert part in str(caught.value)
        wanted = {**way, "names": ["w.1", "w.2"]}  # of what is not asked for nothing is said
        assert [name for name, _ in iterate(tmp_path, **wanted)] == ["w.1", "w.2"]


def test_the_progress_counts_what_the_index_names(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", w_1=1, w_2=2)
    save(tmp_path / "b.safetensors", w_1=-1, w_3=3)
    index_of(tmp_path, ".safetensors", w_1="a", w_2="a", w_3="b")
    seen: list[Any] = []
    list(shardahead.safetensors_weights_iterator(tmp_path, progress=seen.append))
    assert [p.consumed_bytes for p in seen] == [256, 512, 768]
    assert {p.total_bytes for p in seen} == {768}


def test_a_name_in_two_shards_without_an_index_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path / "a.safetensors", w_1=1)
    save(tmp_path / "b.safetensors", w_1=2)
    for iterate, way in iterators(".safetensors"):
        caplog.clear()
        assert [float(t[0]) for _, t in iterate(tmp_path, **way)] == [1, 2]
        (said,) = messages(caplog)
        assert "'w.1'" in said
        assert "no index" in said


# ---- which files are indexes ----


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors.index.json",
        "model.safetensors.index.fp16.json",
        "model.safetensors.index.JSON",
        "MODEL.SAFETENSORS.INDEX.JSON",
        "diffusion_pytorch_model.safetensors.index.non_ema.json",
        "x.safetensors.Index.Fp16.Json",
    ],
)
def test_the_names_of_indexes(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.safetensors")
    write(tmp_path / "b.safetensors")
    index = write_index(tmp_path / name, "b.safetensors")
    assert names_of(resolve_shards(index)) == ["b.safetensors"]
    assert names_of(resolve_shards(tmp_path)) == ["b.safetensors"]
    assert resolve_checkpoint(tmp_path).index == str(index)
    with pytest.raises(ValueError, match=r"files\[0\] is an index"):
        resolve_shards([index])


@pytest.mark.parametrize("name", ["pytorch_model.bin.index.fp16.json", "x.bin.index.json"])
def test_indexes_of_bin_files(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.bin")
    write(tmp_path / "b.bin")
    index = write_index(tmp_path / name, "b.bin")
    assert names_of(resolve_shards(index)) == names_of(resolve_shards(tmp_path)) == ["b.bin"]


@pytest.mark.parametrize(
    "content",
    [
        '{"weight_map": {"t": "a.bin", "t": "b.bin"}}',
        '{"weight_map": {"u": "a.bin", "t": "a.bin", "t": "b.bin"}}',
        '{"weight_map": {"t": "a.bin"}, "weight_map": {"t": "b.bin"}}',
    ],
)
def test_an_index_that_contradicts_itself(tmp_path: Path, content: str) -> None:
    write(tmp_path / "a.bin")
    write(tmp_path / "b.bin")
    index = tmp_path / "x.index.json"
    index.write_text(content)
    with pytest.raises(ValueError, match="malformed index"):
        resolve_shards(index)
    index.write_text('{"weight_map": {"t": "a.bin", "t": "a.bin"}}')
    assert names_of(resolve_shards(index)) == ["a.bin"]


def test_the_same_shard_under_two_names_in_an_index(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", w_1=1, w_2=2)
    os.symlink("a.safetensors", tmp_path / "b.safetensors")
    index_of(tmp_path, ".safetensors", w_1="a", w_2="b")
    found = [name for name, _ in shardahead.safetensors_weights_iterator(tmp_path)]
    assert found == ["w.1", "w.2"]


def test_left_out_files_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "shardahead")
    save(tmp_path / "a.safetensors", w_1=1)
    save(tmp_path / "old.safetensors", w_1=2)
    index_of(tmp_path, ".safetensors", w_1="a")
    for _ in range(3):
        assert len(resolve_shards(tmp_path)) == 1
    (said,) = messages(caplog)
    assert "'old.safetensors'" in said
