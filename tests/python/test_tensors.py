"""Tensors of the weight iterators: each has a storage of its own, which lives as long as it does.

That they have the right bits, with every dtype that models hold, is in test_weights.py.
"""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest

from shardahead import safetensors_weights_iterator
from shardahead.weights.tensor_maker import _DTYPES

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors")
from safetensors.torch import save_file  # noqa: E402


def loaded(path: Path) -> dict[str, Any]:
    return dict(safetensors_weights_iterator(path))


def write(path: Path, entries: dict[str, dict[str, Any]], data: bytes) -> Path:
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


@pytest.mark.parametrize("name", sorted(_DTYPES))
def test_every_dtype_that_is_known_is_what_the_safetensors_library_says(
    tmp_path: Path, name: str
) -> None:
    dtype = getattr(torch, _DTYPES[name])
    data = bytes(range(6 * dtype.itemsize))
    if name == "BOOL":
        data = bytes([0, 1, 1, 0, 1, 0])
    entry = {"dtype": name, "shape": [2, 3], "data_offsets": [0, len(data)]}
    path = write(tmp_path / "a.safetensors", {"x": entry}, data)
    with safetensors.safe_open(path, framework="pt") as shard:
        expected = shard.get_tensor("x")
    found = loaded(path)["x"]
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.view(torch.uint8).numpy().tobytes() == data
    assert found.is_contiguous()


def test_elements_of_half_a_byte_are_what_the_safetensors_library_says(tmp_path: Path) -> None:
    entry = {"dtype": "F4", "shape": [2, 4], "data_offsets": [0, 4]}
    path = write(tmp_path / "a.safetensors", {"x": entry}, bytes([1, 2, 3, 4]))
    with safetensors.safe_open(path, framework="pt") as shard:
        expected = shard.get_tensor("x")
    found = loaded(path)["x"]
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.view(torch.uint8).numpy().tobytes() == expected.view(torch.uint8).numpy().tobytes()


def test_a_dtype_that_no_one_knows_is_an_error_of_its_tensor(tmp_path: Path) -> None:
    entry = {"dtype": "F3", "shape": [4], "data_offsets": [0, 4]}
    path = write(tmp_path / "a.safetensors", {"x": entry}, bytes(4))
    with pytest.raises(ValueError, match=r"a\.safetensors': tensor 'x' has a dtype"):
        loaded(path)


def test_a_tensor_can_be_written_to_and_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(5000), "y": torch.zeros(5000)}, path)
    before = path.read_bytes()
    found = loaded(path)
    found["x"] += 1
    found["y"].fill_(2)
    assert (found["x"] == 1).all()
    assert (found["y"] == 2).all()
    assert path.read_bytes() == before
    assert (loaded(path)["x"] == 0).all()


def test_a_view_of_a_tensor_outlives_it_and_its_iterator(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.arange(100_000), "y": torch.arange(7)}, path)
    weights = safetensors_weights_iterator(path)
    _, tensor = next(weights)
    tail = tensor.view(100, 1000)[99, 990:]
    assert tensor.untyped_storage().nbytes() == tensor.nbytes
    del tensor
    weights.close()
    del weights
    gc.collect()
    path.unlink()
    assert tail.tolist() == list(range(99_990, 100_000))
