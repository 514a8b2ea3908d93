"""mode "pread": the same tensors, read into memory of their own, whose size is bounded.

What is right is what the safetensors library reads from the source by itself. Mounts that keep no
pages are in test_pread_mounts.py, errors and reads that stall in test_pread_errors.py.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import pread_support
import pytest
from conftest import MIB, eventually, resident_bytes, run_python, worker_threads
from pread_support import ITERATORS
from weights_support import Bits, MakeIterator, bits, read, save_file

from shardahead import safetensors_weights_iterator
from shardahead.prefetch.consumer import PrefetchConsumer
from shardahead.prefetch.options import Options, resolve_mode, resolve_options
from shardahead.weights.shard_reading import ahead_bytes

torch = pytest.importorskip("torch")

expected = pread_support.expected
iterate = pread_support.iterate
source = pread_support.source


# ---- the same tensors ----


@pytest.mark.parametrize("options", [{}, {"threads": 1}, {"window_bytes": 1}, {"prefetch": False}])
def test_the_same_tensors_and_no_mapping(
    source: Path, expected: list[Bits], iterate: MakeIterator, options: dict[str, Any]
) -> None:
    weights = iterate(source, mode="pread", **options)
    assert (weights.mode, weights.prefetch) == ("pread", None)
    mapped = ""
    found = []
    for name, tensor in weights:
        found.append(bits(name, tensor))
        mapped = Path("/proc/self/maps").read_text()
        assert str(source) not in mapped
    assert found == expected
    assert list(weights) == []


def test_each_tensor_has_an_aligned_storage_of_its_own(source: Path) -> None:
    held = list(safetensors_weights_iterator(source, mode="pread"))
    storages = [t.untyped_storage() for _, t in held if t.nbytes]
    assert len({s.data_ptr() for s in storages}) == len(storages)
    assert all(s.data_ptr() % 64 == 0 for s in storages)
    assert [s.nbytes() for s in storages] == [t.nbytes for _, t in held if t.nbytes]
    for _, tensor in held:
        tensor.view(-1)[:1].zero_()  # it may be written to


def test_the_mode_comes_from_argument_environment_or_default(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_mode(environ={}) == "auto"
    assert resolve_mode(Options(mode="mmap"), environ={"SHARDAHEAD_MODE": "pread"}) == "mmap"
    with pytest.raises(ValueError, match="SHARDAHEAD_MODE must be one of auto, mmap, pread"):
        resolve_mode(environ={"SHARDAHEAD_MODE": "magic"})
    monkeypatch.setenv("SHARDAHEAD_MODE", "pread")
    assert safetensors_weights_iterator(source).mode == "pread"
    monkeypatch.setenv("SHARDAHEAD_DISABLE", "1")
    assert safetensors_weights_iterator(source).mode == "mmap"


def test_where_pages_are_kept_auto_means_mappings(source: Path, expected: list[Bits]) -> None:
    weights = safetensors_weights_iterator(source)
    assert weights.mode == "auto"
    assert read(weights) == expected
    assert weights.mode == "mmap"
    assert weights.prefetch is not None
    assert weights.prefetch.report().keeps_pages
    assert weights.prefetch.report().keeps_pages_reason == ""


def test_only_the_named_tensors(source: Path, expected: list[Bits], iterate: MakeIterator) -> None:
    def wanted(name: str) -> bool:
        return "up_proj" in name or name in ("small.7", "large.3")

    found = read(iterate(source, mode="pread", names=wanted))
    assert found == [entry for entry in expected if wanted(entry[0])]
    assert len(found) == 5
    assert read(iterate(source, mode="pread", names=[])) == []


def test_progress_and_drop_after(source: Path, expected: list[Bits], iterate: MakeIterator) -> None:
    told: list[Any] = []
    options = {"progress": told.append, "drop_after": True, "local_rank": 0, "local_size": 2}
    assert read(iterate(source, mode="pread", **options)) == expected
    assert told[-1].consumed_bytes == told[-1].total_bytes == sum(len(e[3]) for e in expected)
    assert [resident_bytes(path) for path in source.iterdir()] == [0] * 6


def test_a_kind_of_tensor_that_torch_has_under_no_name_of_its_own(tmp_path: Path) -> None:
    for dtype, shape, length in (("F4", [4], 2), ("Q9", [2], 2), ("U8", [3], 2)):
        header = {
            "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
            "b": {"dtype": dtype, "shape": shape, "data_offsets": [1, 1 + length]},
        }
        text = json.dumps(header).encode()
        path = tmp_path / f"{dtype}.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + b"\x01\x02\x03")
        outcomes: list[Any] = []
        for mode in ("mmap", "pread"):
            try:
                weights = safetensors_weights_iterator(path, mode=mode)
                outcomes.append([(n, t.dtype, t.shape) for n, t in weights])
            except Exception as error:
                outcomes.append([type(error)])
        assert outcomes[0] == outcomes[1]


def test_a_file_that_cannot_be_mapped_is_read(
    source: Path,
    expected: list[Bits],
    iterate: MakeIterator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(_consumer: PrefetchConsumer, _file: int) -> Any:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), "shard")

    monkeypatch.setattr(PrefetchConsumer, "map", refuse)
    with caplog.at_level(logging.WARNING, "shardahead"):
        weights = iterate(source)
        assert read(weights) == expected
    assert weights.mode == "pread"
    assert "cannot be mapped" in caplog.text


# ---- memory, threads, fork ----


def test_its_threads_end_with_it(source: Path, iterate: MakeIterator) -> None:
    before = worker_threads()
    for close in (True, False):
        for started in (True, False):
            weights = iterate(source, mode="pread")
            if started:
                next(weights)
            if close:
                weights.close()
            del weights
            eventually(lambda: worker_threads() <= before, "the threads stay")


def test_what_is_ahead_is_bounded(tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    for i in range(4):
        tensors = {f"{i}.{j}": torch.zeros(4 * MIB, dtype=torch.uint8) + j for j in range(16)}
        save_file(tensors, folder / f"{i}.safetensors")
    script = """
import json, sys, time, torch, shardahead
def anonymous():
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("RssAnon"))
make = getattr(shardahead, sys.argv[1])
list(make(sys.argv[2], mode="pread", window_bytes=1, names=["0.0"]))  # what is loaded once stays
before, most = anonymous(), 0
for i, (name, tensor) in enumerate(make(sys.argv[2], mode="pread", window_bytes=16 << 20)):
    if i % 8 == 0:
        time.sleep(0.05)
    most = max(most, anonymous() - before)
    del tensor
print(json.dumps(most))
"""
    for make in ITERATORS.values():
        most = run_python(script, make.__name__, folder)
        assert 8 * MIB < most < 32 * MIB


def test_the_bound_of_what_is_ahead() -> None:
    def bound(window_bytes: int | None, budget: str) -> int:
        environ = {"SHARDAHEAD_MEMORY_BUDGET_BYTES": budget}
        return ahead_bytes(resolve_options(Options(window_bytes=window_bytes), environ=environ))

    assert bound(None, "100GiB") == bound(0, "100GiB") == 128 * MIB
    assert bound(1, "100GiB") == 1
    assert bound(None, "200MiB") == 50 * MIB
    assert bound(None, "0") == 8 * MIB


def test_a_forked_child_goes_on_by_itself(source: Path, expected: list[Bits]) -> None:
    script = """
import hashlib, json, os, sys, shardahead
weights = shardahead.safetensors_weights_iterator(sys.argv[1], mode="pread")
first = [next(weights)[0] for _ in range(3)]
reading, writing = os.pipe()
def rest():
    return [(n, hashlib.sha256(t.reshape(-1).view(torch.uint8).numpy()).hexdigest())
            for n, t in weights]
import torch
child = os.fork()
if child == 0:
    os.write(writing, json.dumps([n for n, _ in rest()]).encode())
    os._exit(0)
os.close(writing)
mine = [n for n, _ in rest()]
text = b""
while part := os.read(reading, 65536):
    text += part
print(json.dumps([os.waitpid(child, 0)[1], first + mine, first + json.loads(text)]))
"""
    status, mine, theirs = run_python(script, source)
    assert status == 0
    assert mine == theirs == [entry[0] for entry in expected]
