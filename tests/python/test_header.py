"""The header of a safetensors file: read right, or refused with the name of the file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shardahead.checkpoint.safetensors_header import MAX_HEADER_BYTES, TensorRange, read_header


def tensor(begin: Any, end: Any) -> dict[str, Any]:
    shape = [end - begin] if isinstance(begin, int) and isinstance(end, int) else [0]
    return {"dtype": "U8", "shape": shape, "data_offsets": [begin, end]}


def write(path: Path, header: Any, data_bytes: int = 0, length: int | None = None) -> Path:
    """A file with this header: bytes as they are, anything else as JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    declared = len(text) if length is None else length
    path.write_bytes(declared.to_bytes(8, "little") + text + bytes(data_bytes))
    return path


def test_tensors_come_by_offset_whatever_the_order_in_the_header(tmp_path: Path) -> None:
    header = {
        "z": tensor(4, 10),
        "__metadata__": {"format": "pt"},
        "empty": tensor(4, 4),
        "ünï\n": tensor(10, 100),
        "a": tensor(0, 4),
    }
    path = write(tmp_path / "a", header, 100)
    found = read_header(str(path))
    begin = path.stat().st_size - 100
    assert found.data_offset == begin
    assert found.tensors == (
        TensorRange("a", begin, 4, "U8", (4,)),
        TensorRange("empty", begin + 4, 0, "U8", (0,)),
        TensorRange("z", begin + 4, 6, "U8", (6,)),
        TensorRange("ünï\n", begin + 10, 90, "U8", (90,)),
    )
    assert [t.end - begin for t in found.tensors] == [4, 4, 10, 100]


@pytest.mark.parametrize("text", [b"{}", b'{"__metadata__":{}}', b"{}      "])
def test_a_file_without_tensors(tmp_path: Path, text: bytes) -> None:
    found = read_header(str(write(tmp_path / "a", text)))
    assert (found.data_offset, found.tensors) == (8 + len(text), ())


def test_it_agrees_with_the_safetensors_library(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    numpy_format = pytest.importorskip("safetensors.numpy")
    import numpy as np

    arrays = {f"t{i}": np.full((i, 3), i, dtype=np.int16) for i in range(7)}
    path = tmp_path / "a.safetensors"
    numpy_format.save_file(arrays, path)
    content = path.read_bytes()
    found = read_header(str(path))
    assert {t.name: content[t.offset : t.end] for t in found.tensors} == {
        name: array.tobytes() for name, array in arrays.items()
    }


NOT_HEADERS: dict[str, Any] = {
    "a list": [],
    "a number": 12,
    "null": None,
    "no JSON": b"{'a': 1}",
    "half a JSON": b'{"a": {"data_offsets": [0, ',
    "not UTF-8": b'{"\xff\xfe": 1}',
    "zeros": b"\0" * 100,
    "no data_offsets": {"a": {"dtype": "U8", "shape": [1]}},
    "an entry that is no object": {"a": 5},
    "an entry that is null": {"a": None},
    "one offset": {"a": {"data_offsets": [0]}},
    "three offsets": {"a": {"data_offsets": [0, 1, 2]}},
    "offsets that are no numbers": {"a": tensor("zero", None)},
    "offsets in quotes": {"a": tensor("0", "4")},
    "offsets that are not whole": {"a": tensor(0, 4.5)},
    "offsets that are not finite": b'{"a":{"data_offsets":[0,1e999]}}',
    "offsets that are NaN": b'{"a":{"data_offsets":[NaN,4]}}',
    "an offset of many digits": b'{"a":{"data_offsets":[0,' + b"9" * 5000 + b"]}}",
    "deep nesting": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep lists": b"[" * 100_000,
    "a negative offset": {"a": tensor(-1, 4)},
    "a negative length": {"a": tensor(4, 0)},
    "an end past the file": {"a": tensor(0, 11)},
    "an offset past the file": {"a": tensor(2**62, 2**62 + 1)},
}


@pytest.mark.parametrize("header", NOT_HEADERS.values(), ids=NOT_HEADERS.keys())
def test_nonsense_is_refused_with_the_name_of_the_file(tmp_path: Path, header: Any) -> None:
    path = write(tmp_path / "model-00007.safetensors", header, 10)
    with pytest.raises(ValueError, match=r"model-00007\.safetensors'"):
        read_header(str(path))


@pytest.mark.parametrize("length", [0, 1, 17, MAX_HEADER_BYTES + 1, 2**63, 2**64 - 1])
def test_a_header_length_that_cannot_be(tmp_path: Path, length: int) -> None:
    path = write(tmp_path / "model.safetensors", b"{}", length=length)
    with pytest.raises(ValueError, match=f"model.safetensors'.*a header of {length} bytes"):
        read_header(str(path))


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 60])
def test_a_truncated_file(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "model.safetensors", {"a": tensor(0, 100)}, 100)
    os.truncate(path, cut)
    with pytest.raises(ValueError, match=r"model\.safetensors'.*truncated"):
        read_header(str(path))


def test_a_huge_declared_header_is_not_allocated(tmp_path: Path) -> None:
    # Sparse: the file is large enough for the length that it declares.
    path = write(tmp_path / "model.safetensors", b"{}", length=MAX_HEADER_BYTES + 1)
    os.truncate(path, 2 * MAX_HEADER_BYTES)
    with pytest.raises(ValueError, match=r"model\.safetensors'"):
        read_header(str(path))


def test_what_cannot_be_opened_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        read_header(str(tmp_path / "missing"))
    assert missing.value.filename == str(tmp_path / "missing")
    with pytest.raises(IsADirectoryError) as folder:
        read_header(str(tmp_path))
    assert folder.value.filename == str(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises((OSError, ValueError), match="fifo"):
        read_header(str(tmp_path / "fifo"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: bytes([50]) + bytes(7) + b))
@example((2).to_bytes(8, "little") + b"{}")
@example((4).to_bytes(8, "little") + b"\xef\xbb\xbf{}")
def test_any_bytes_are_a_header_or_a_value_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fuzzed"
    path.write_bytes(content)
    try:
        found = read_header(str(path))
    except ValueError as error:
        assert "fuzzed" in str(error)
        return
    assert found.data_offset <= len(content)
