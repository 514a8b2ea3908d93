"""A loader that is not ours is followed: safetensors by the pages it touches, torch.load by offset.

What a descriptor or a mapping shows in detail is tested in C++ (loader_progress_test.cpp).
"""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, make_cold, write_file

from shardahead import prefetch_files
from shardahead._core import LoaderProgress
from shardahead.checkpoint.safetensors_header import TensorRange, read_header
from shardahead.prefetch.options import Strategy

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors")
from safetensors.torch import save_file  # noqa: E402

TENSORS = 8
TENSOR_BYTES = 8 * MIB
SCAN_BYTES = 2 * TENSOR_BYTES
# A fault maps what is resident around it: up to one huge page.
AROUND_BYTES = 2 * MIB


@pytest.fixture
def _pagemap() -> None:
    try:
        with open("/proc/self/pagemap", "rb"):
            pass
    except OSError as error:
        pytest.skip(f"this system does not show what was touched: {error}")


def make_tensors() -> dict[str, Any]:
    shape = (TENSOR_BYTES // 4 // 1024, 1024)
    return {f"layer.{i}": torch.full(shape, float(i)) for i in range(TENSORS)}


def write_safetensors(path: Path) -> tuple[TensorRange, ...]:
    save_file(make_tensors(), path)
    return read_header(str(path)).tensors


def follow(*paths: Path) -> LoaderProgress:
    return LoaderProgress([os.fsencode(path) for path in paths])


@pytest.mark.usefixtures("_pagemap")
def test_a_loop_over_safetensors_is_followed_tensor_by_tensor(tmp_path: Path) -> None:
    paths = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    tensors = [write_safetensors(path) for path in paths]
    progress = follow(*paths)
    assert progress.look(SCAN_BYTES) == [(0, False), (0, False)]
    for i, path in enumerate(paths):
        with safetensors.safe_open(path, framework="pt") as file:
            for tensor in tensors[i]:
                view = file.get_tensor(tensor.name)
                position, mapped = progress.look(SCAN_BYTES)[i]
                assert mapped
                assert position <= tensor.offset + AROUND_BYTES  # nothing was copied yet
                view.clone()
                position, _ = progress.look(SCAN_BYTES)[i]
                assert tensor.end <= position <= tensor.end + AROUND_BYTES
            del view
        assert progress.look(SCAN_BYTES)[i] == (path.stat().st_size, False)
    assert [position for position, _ in progress.look(SCAN_BYTES)] == [
        path.stat().st_size for path in paths
    ]


@pytest.mark.usefixtures("_pagemap")
def test_slices_are_followed_to_their_last_row(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = write_safetensors(path)
    progress = follow(path)
    with safetensors.safe_open(path, framework="pt") as file:
        for tensor in tensors:
            rows = file.get_slice(tensor.name)
            rows[: rows.get_shape()[0] // 2].clone()
            end = tensor.offset + tensor.length // 2
            position, mapped = progress.look(SCAN_BYTES)[0]
            assert mapped
            assert end <= position <= end + AROUND_BYTES


@pytest.mark.usefixtures("_pagemap")
@pytest.mark.parametrize("framework", ["pt", "np"])
def test_a_loop_in_another_thread_is_followed_to_its_end(tmp_path: Path, framework: str) -> None:
    path = tmp_path / "a.safetensors"
    tensors = write_safetensors(path)
    progress = follow(path)
    # numpy's tensors are copies, and the mapping ends with the file: look while it is open.
    loaded, looked = threading.Event(), threading.Event()

    def load() -> None:
        with safetensors.safe_open(path, framework=framework) as file:
            for tensor in tensors:
                file.get_tensor(tensor.name).sum()
            loaded.set()
            looked.wait()

    thread = threading.Thread(target=load)
    thread.start()
    positions = [progress.look(SCAN_BYTES)[0][0]]
    while not loaded.is_set():
        positions.append(progress.look(SCAN_BYTES)[0][0])
    positions.append(progress.look(path.stat().st_size)[0][0])
    looked.set()
    thread.join()
    assert positions == sorted(positions)
    assert positions[-1] == path.stat().st_size


class Followed(io.BufferedReader):
    """What open() gives, with a look after each read."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.progress = follow(path)
        self.offsets: list[int] = []  # of this file
        self.positions: list[int] = []  # as they were seen

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        self.offsets.append(self.tell())
        self.positions.append(self.progress.look(SCAN_BYTES)[0][0])
        return count


def test_torch_load_is_followed_by_the_offset_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(make_tensors(), path)
    with Followed(path) as file:
        loaded = torch.load(file)
    assert list(loaded) == list(make_tensors())
    # It begins at the end, where the directory is: that is not where the load has got.
    assert max(file.offsets[:3]) > path.stat().st_size - MIB
    assert file.positions[0] < MIB
    # Then each tensor is one long read, in the order of the file.
    assert file.positions == sorted(file.positions)
    assert len(set(file.positions)) > TENSORS // 2
    assert file.positions[-1] > path.stat().st_size - TENSOR_BYTES


@pytest.mark.usefixtures("_pagemap")
def test_torch_load_with_mmap_is_followed_by_what_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(make_tensors(), path)
    progress = follow(path)
    ends = []
    for tensor in torch.load(path, mmap=True).values():
        tensor.clone()
        position, mapped = progress.look(SCAN_BYTES)[0]
        assert mapped
        ends.append(position)
    for i, end in enumerate(ends):
        assert (i + 1) * TENSOR_BYTES <= end <= (i + 1) * TENSOR_BYTES + AROUND_BYTES + MIB


@pytest.mark.parametrize("strategy", ["populate", "fadvise", "pread"])
def test_our_own_prefetch_is_no_loader(tmp_path: Path, strategy: Strategy) -> None:
    paths = [write_file(tmp_path / name, 32 * MIB) for name in "ab"]
    make_cold(*paths)
    progress = follow(*paths)
    with prefetch_files(paths, strategy=strategy) as handle:
        while not handle.done:
            assert progress.look(SCAN_BYTES) == [(0, False), (0, False)]
        handle.wait()
    assert progress.look(SCAN_BYTES) == [(0, False), (0, False)]
