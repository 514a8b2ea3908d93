"""Relative paths mean what they meant when a load began, whatever folder the process goes to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, is_resident, make_cold
from shard_support import write, write_index

from shardahead import prefetch_files, prefetching
from shardahead.checkpoint.shards import resolve_shards


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "model" / "a.safetensors")
    write_index(tmp_path / "model" / "x.index.json", "a.safetensors")
    monkeypatch.chdir(tmp_path)
    ways: list[Any] = ["model", "./model/", "model/x.index.json", ["model/a.safetensors"]]
    for files in [*ways, Path("model/a.safetensors"), [b".//model/a.safetensors"]]:
        assert [shard.path for shard in resolve_shards(files)] == [str(path)], files
    monkeypatch.chdir(tmp_path / "model")
    for files in (".", "x.index.json", "./a.safetensors"):
        assert [shard.path for shard in resolve_shards(files)] == [str(path)], files


def test_links_and_dots_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "far" / "a.bin")
    (tmp_path / "far" / "deep").mkdir()
    (tmp_path / "here").mkdir()
    os.symlink(tmp_path / "far" / "deep", tmp_path / "here" / "link")
    monkeypatch.chdir(tmp_path / "here")
    (shard,) = resolve_shards("link/../a.bin")  # not here/a.bin, which is not there
    assert shard.path == str(tmp_path / "here" / "link/../a.bin")


def test_a_missing_path_is_named_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.bin")
    monkeypatch.chdir(tmp_path)
    ways: list[Any] = ["./missing.bin", ["a.bin", "./missing.bin"]]
    for files in ways:
        with pytest.raises(FileNotFoundError) as caught:
            resolve_shards(files)
        assert caught.value.filename == "./missing.bin"


def test_relative_to_a_folder_that_has_no_path_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    write(tmp_path / "a.bin")
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert [shard.path for shard in resolve_shards("../a.bin")] == ["../a.bin"]  # as open() would


@pytest.mark.parametrize(
    "way", [{}, {"prefetch": False}, {"mode": "pread"}, {"progress": print}, {"drop_after": True}]
)
def test_a_load_goes_on_in_another_folder(
    numbered: Path, monkeypatch: pytest.MonkeyPatch, way: dict[str, Any]
) -> None:
    from shardahead import safetensors_weights_iterator

    monkeypatch.chdir(numbered)
    weights = safetensors_weights_iterator(".", **way)
    monkeypatch.chdir("/")
    assert len([name for name, _ in weights]) == 24


def test_a_load_of_pt_files_goes_on_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    from shardahead import pt_weights_iterator

    for i in range(2):
        torch.save({f"w{i}": torch.ones(1000)}, tmp_path / f"{i}.bin")
    monkeypatch.chdir(tmp_path)
    ways: list[dict[str, Any]] = [{}, {"mode": "pread"}]
    for way in ways:
        weights = pt_weights_iterator(["0.bin", "1.bin"], **way)
        monkeypatch.chdir("/")
        assert [name for name, _ in weights] == ["w0", "w1"]
        monkeypatch.chdir(tmp_path)


def test_a_prefetch_goes_on_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only some of the files stay open; the others are opened again by their paths."""
    paths = [tmp_path / f"{i:03}.bin" for i in range(140)]
    for path in paths:
        path.write_bytes(os.urandom(8192))
    make_cold(*paths)
    monkeypatch.chdir(tmp_path)
    names = [path.name for path in paths]
    with prefetching(names, block_size=4096) as handle:
        monkeypatch.chdir("/")
        handle.wait()
        assert handle.report().error_count == 0
    assert all(map(is_resident, paths))
    monkeypatch.chdir(tmp_path)
    ranges: Any = {"001.bin": [(0, 4096)]}
    assert prefetch_files(["001.bin", "002.bin"], spans=ranges).progress().planned_bytes < MIB
