"""pt_weights_iterator: what torch.load gives, through a prefetch; nothing else is ever unpickled.

What is right is what torch.load reads from the source by itself.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    MIB,
    MakeMount,
    eventually,
    make_cold,
    resident_bytes,
    worker_threads,
)
from nursery import Nursery
from weights_support import Bits, bits, random_tensor, zoo

import shardahead
from shardahead import pt_weights_iterator
from shardahead.prefetch.options import Mode

torch = pytest.importorskip("torch")


def plainly(folder: Path) -> list[Bits]:
    return [
        bits(name, tensor)
        for path in sorted(folder.glob("*.bin"))
        for name, tensor in torch.load(path, weights_only=True).items()
        if torch.is_tensor(tensor)
    ]


def read(*arguments: Any, **options: Any) -> list[Bits]:
    return [bits(name, tensor) for name, tensor in pt_weights_iterator(*arguments, **options)]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for number in range(3):
        torch.save(zoo(number), folder / f"pytorch_model-{number}.bin")
    return folder


@pytest.mark.parametrize("mode", ["auto", "mmap", "pread"])
@pytest.mark.parametrize("prefetch", [True, False])
def test_the_same_tensors_in_the_same_order(checkpoint: Path, mode: Mode, prefetch: bool) -> None:
    expected = plainly(checkpoint)
    make_cold(*checkpoint.iterdir())
    weights = pt_weights_iterator(checkpoint, mode=mode, prefetch=prefetch)
    assert [bits(name, tensor) for name, tensor in weights] == expected
    assert (weights.prefetch is not None) == (prefetch and mode != "pread")
    assert weights.mode == ("pread" if mode == "pread" else "mmap")
    if weights.prefetch is not None:
        assert not weights.prefetch.cancelled
        assert weights.prefetch.report().left_out_bytes == 0


def test_names_files_and_order(checkpoint: Path) -> None:
    wanted = {"layers.1.scale", "layers.2.mask", "no.such"}
    names = [name for name, _ in pt_weights_iterator(checkpoint, names=wanted)]
    assert names == ["layers.1.scale", "layers.2.mask"]
    paths = sorted(checkpoint.iterdir())
    assert read(paths[::-1]) == read(paths) == plainly(checkpoint)
    (checkpoint / "model.safetensors").write_bytes(b"")  # beside it; these are what was asked for
    assert read(checkpoint) == plainly(checkpoint)


def test_tensors_that_share_a_storage_or_come_in_another_order(tmp_path: Path) -> None:
    big = random_tensor(torch.float32, (1024, 1024), 1)
    late = random_tensor(torch.bfloat16, (77, 3), 2)
    torch.save({"view": big[3:5, 1:7], "whole": big, "n": 3, "late": late}, tmp_path / "a.bin")
    state = torch.load(tmp_path / "a.bin", weights_only=True)
    torch.save({"late": state["late"], "tied": big, "again": big}, tmp_path / "b.bin")
    assert read(tmp_path) == plainly(tmp_path)


def test_old_files_are_read(tmp_path: Path) -> None:
    kinds = (torch.bfloat16, torch.float32, torch.int64, torch.bool)
    state = {str(kind): random_tensor(kind, (5, 7), n) for n, kind in enumerate(kinds)}
    torch.save(state, tmp_path / "a.bin", _use_new_zipfile_serialization=False)
    assert read(tmp_path) == plainly(tmp_path)


class Planted:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("planted",))


@pytest.mark.parametrize("archive", [True, False])
def test_nothing_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.bin"
    if archive:
        torch.save({"weight": Planted()}, path)
    else:
        path.write_bytes(pickle.dumps({"weight": Planted()}))
    with pytest.raises(ValueError, match=r"a\.bin'"):
        read(path)
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"x" * 100, b"PK\x03\x04" + b"y" * MIB])
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.bin'"):
        read(tmp_path / "a.bin")


def test_something_else_than_a_dictionary(tmp_path: Path) -> None:
    torch.save(torch.ones(3), tmp_path / "a.bin")
    with pytest.raises(ValueError, match=r"a\.bin' has no dictionary of tensors, but Tensor"):
        read(tmp_path / "a.bin")


def test_a_folder_without_any(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match=r"no shards \(\*\.bin, \*\.pt, \*\.pth\)"):
        pt_weights_iterator(tmp_path)


def test_its_threads_end_with_it(checkpoint: Path) -> None:
    before = worker_threads()
    weights = pt_weights_iterator(checkpoint)
    next(weights)
    weights.close()
    eventually(lambda: worker_threads() <= before, "the threads stay")
    with pytest.raises(ZeroDivisionError), pt_weights_iterator(checkpoint) as weights:
        next(weights)
        raise ZeroDivisionError
    assert list(weights) == []
    eventually(lambda: worker_threads() <= before, "the threads stay")


LOAD = """
import json, sys, zlib, shardahead, torch
weights = shardahead.pt_weights_iterator(sys.argv[1])
sums = {name: zlib.crc32(tensor.view(torch.uint8).numpy().data) for name, tensor in weights}
print(json.dumps([weights.mode, sums]))
"""


@pytest.mark.parametrize("keep_cache", [True, False])
def test_ranks_on_a_slow_filesystem(
    nursery: Nursery, tmp_path: Path, make_mount: MakeMount, keep_cache: bool
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(2):
        state = {f"{i}.{j}": random_tensor(torch.int16, (3 * MIB,), 9 * i + j) for j in range(3)}
        torch.save(state, source / f"{i}.bin")
    file_bytes = sum(path.stat().st_size for path in source.iterdir())
    mount = make_mount(source, keep_cache=keep_cache)
    ranks = nursery.run_ranks(LOAD, 2, mount.mountpoint)
    assert ranks[0] == ranks[1]
    assert ranks[0][0] == ("mmap" if keep_cache else "pread")
    mount.wait_until_idle()
    if keep_cache:
        assert mount.counters().bytes_served <= 1.02 * file_bytes
        resident = sum(resident_bytes(path) for path in mount.mountpoint.iterdir())
        assert resident >= 0.98 * file_bytes


def test_bytes_that_cannot_be_read(tmp_path: Path, make_mount: MakeMount) -> None:
    source = tmp_path / "source"
    source.mkdir()
    state = {f"{j}": random_tensor(torch.uint8, (4 * MIB,), j) for j in range(3)}
    torch.save(state, source / "a.bin")
    mount = make_mount(source)
    place = (source / "a.bin").read_bytes().index(state["1"].numpy().tobytes()[:64])
    mount.bad("a.bin", place + MIB, 1)
    names = []
    with pytest.raises(OSError) as raised:
        for name, _tensor in pt_weights_iterator(mount.mountpoint):
            names.append(name)
    assert names == ["0"]
    assert raised.value.filename == str(mount.mountpoint / "a.bin")


def test_it_is_public() -> None:
    assert "pt_weights_iterator" in shardahead.__all__
