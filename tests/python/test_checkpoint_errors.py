"""What is wrong with the contents of a file is a CheckpointError in every mode, which names the
file and, where there is one, the tensor. What it says is in the tests of each format.
"""

from __future__ import annotations

import io
import json
import pickle
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pt_support import edited, packed, saved
from weights_support import buffered, one_by_one, save_file

import shardahead
from shardahead import CheckpointError, prefetch_files, prefetching, pt_weights_iterator
from shardahead.checkpoint.errors import ContentsError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")

MODES: list[dict[str, Any]] = [
    {},
    {"mode": "mmap"},
    {"mode": "pread"},
    {"prefetch": False},
    {"names": lambda _name: True},
]
ITERATORS = {"one by one": one_by_one, "buffered": buffered}


def header(entries: Any, data: bytes = b"") -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights"))
    return file.getvalue()


WHOLE = header({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 4, 8)}, b"12345678")

#: Contents, and the tensor that is named.
SAFETENSORS: dict[str, tuple[bytes, str | None]] = {
    "empty": (b"", None),
    "cut off in the length": (WHOLE[:5], None),
    "cut off in the header": (WHOLE[:40], None),
    "cut off in a tensor": (WHOLE[:-1], "b"),
    "longer": (WHOLE + b"1", None),
    "zeros": (bytes(4096), None),
    "a web page": (b"<html><body>403</body></html>" * 10, None),
    "not JSON": (header(b"{]"), None),
    "not UTF-8": (header(b'{"\xff":1}'), None),
    "a list": (header([]), None),
    "a key twice": (header(b'{"a":1,"a":2}'), None),
    "a number of 5000 digits": (header(b'{"a":' + b"9" * 5000 + b"}"), None),
    "metadata that is no text": (header({"__metadata__": {"n": 1}}), None),
    "no object": (header({"a": 7}), "a"),
    "no dtype": (header({"a": {"shape": [1], "data_offsets": [0, 1]}}, b"1"), "a"),
    "an unknown dtype": (header({"a": entry("Q9", [4], 0, 4)}, b"1234"), "a"),
    "a dtype that torch has not": (header({"a": entry("F6_E2M3", [4], 0, 3)}, b"123"), "a"),
    "another size": (header({"a": entry("F32", [2], 0, 4)}, b"1234"), "a"),
    "beyond the file": (header({"a": entry("U8", [8], 0, 8)}, b"1234"), "a"),
    "an overlap": (
        header({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 2, 6)}, b"123456"),
        "b",
    ),
}


@pytest.mark.parametrize("way", MODES)
@pytest.mark.parametrize("iterate", ITERATORS)
@pytest.mark.parametrize("kind", SAFETENSORS)
def test_a_broken_safetensors_file(
    tmp_path: Path, kind: str, iterate: str, way: dict[str, Any]
) -> None:
    content, tensor = SAFETENSORS[kind]
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        list(ITERATORS[iterate](path, **way))
    check(caught.value, path, tensor)


def test_a_dtype_that_only_the_library_knows_and_cannot_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    def refuses(_content: bytes) -> None:
        raise safetensors.SafetensorError("of its own")

    path = tmp_path / "a.safetensors"
    path.write_bytes(header({"a": entry("Q9", [4], 0, 4)}, b"1234"))
    monkeypatch.setattr(
        "shardahead.checkpoint.safetensors_header.library_knows", lambda _dtype: True
    )
    monkeypatch.setattr(safetensors.torch, "load", refuses)
    for way in MODES:
        with pytest.raises(CheckpointError, match="of its own") as caught:
            list(one_by_one(path, **way))
        check(caught.value, path, "a")


ONES = {"w": torch.ones(3)}
ARCHIVE = saved(ONES)


def old(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


PT: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "cut off": lambda: ARCHIVE[: len(ARCHIVE) // 2],
    "cut off at the end": lambda: ARCHIVE[:-1],
    "zeros": lambda: bytes(4096),
    "a web page": lambda: b"<html><body>403</body></html>",
    "safetensors": lambda: WHOLE,
    "a tar archive": tar,
    "a record that does not unpack": lambda: packed(
        edited(ONES, data_pkl=b"\x80\x02"), deflates=lambda _: True
    ).replace(b"\x6b\x68\x02\x00", b"\xff\xff\xff\xff"),
    "a pickle that is none": lambda: packed(edited(ONES, data_pkl=b"\xff\xfe")),
    "a pickle without an end": lambda: packed(edited(ONES, data_pkl=b"\x80\x02}")),
    "no storage": lambda: packed(r for r in edited(ONES) if "data/0" not in r[0]),
    "a class that is not allowed": lambda: saved({"w": Path("x")}),
    "a list": lambda: saved([torch.ones(3)]),
    "a tensor elsewhere": lambda: saved({"w": [torch.ones(3)]}),
    "old, cut off": lambda: old(ONES)[:-5],
    "an old pickle of a class": lambda: pickle.dumps(Path("x")),
    "a pickle of text": lambda: pickle.dumps("x"),
}


@pytest.mark.parametrize("way", MODES)
@pytest.mark.parametrize("kind", PT)
def test_a_broken_file_of_torch(tmp_path: Path, kind: str, way: dict[str, Any]) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(PT[kind]())
    with pytest.raises(CheckpointError) as caught:
        list(pt_weights_iterator(path, **way))
    check(caught.value, path, None)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".pt"])
def test_files_that_were_changed_at_random(tmp_path: Path, suffix: str) -> None:
    """No error but CheckpointError escapes, whatever a file holds."""
    iterate = one_by_one if suffix == ".safetensors" else pt_weights_iterator
    whole = {".safetensors": WHOLE, ".bin": ARCHIVE, ".pt": old(ONES)}[suffix]
    path = tmp_path / f"a{suffix}"
    drawn, refused = random.Random(suffix), 0
    for number in range(150):
        content = bytearray(whole)
        for _ in range(drawn.choice((1, 3, 30))):
            content[drawn.randrange(len(content))] = drawn.randrange(256)
        path.write_bytes(content[: drawn.randrange(len(content))] if number % 3 == 0 else content)
        try:
            list(iterate(path, **MODES[number % 4]))
        except CheckpointError as error:
            check(error, path, error.tensor)
            refused += 1
    assert refused > 50


#: The index, and the tensor that is named.
INDEXES: dict[str, tuple[bytes, str | None]] = {
    "empty": (b"", None),
    "not JSON": (b"{", None),
    "not UTF-8": (b'{"weight_map": {"\xff": "a.safetensors"}}', None),
    "deep": (b"[" * 100_000, None),
    "a number of 5000 digits": (b'{"weight_map": ' + b"9" * 5000 + b"}", None),
    "no map": (b"{}", None),
    "an empty map": (b'{"weight_map": {}}', None),
    "a file that is no text": (b'{"weight_map": {"w": 7}}', "w"),
    "two files": (b'{"weight_map": {"w": "a", "w": "b"}}', "w"),
    "outside": (b'{"weight_map": {"w": "../a"}}', None),
    "half a character": (b'{"weight_map": {"w": "\\ud800"}}', None),
    "a NUL": (b'{"weight_map": {"w": "a\\u0000"}}', None),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_a_broken_index(tmp_path: Path, kind: str) -> None:
    content, tensor = INDEXES[kind]
    index = tmp_path / "model.safetensors.index.json"
    index.write_bytes(content)
    for files in (index, tmp_path):
        for make in (prefetch_files, one_by_one, buffered):
            with pytest.raises(CheckpointError) as caught:
                make(files)
            check(caught.value, index, tensor)
        with pytest.raises(CheckpointError) as caught, prefetching(files):
            pass
        check(caught.value, index, tensor)


def test_an_index_with_two_maps_is_told_so(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"w": "a"}, "weight_map": {"w": "b"}}')
    with pytest.raises(CheckpointError, match="it has two 'weight_map'"):
        prefetch_files(index)


def test_the_cause_is_what_torch_said(tmp_path: Path) -> None:
    """An error of our own in between would tell the same without the file."""
    path = tmp_path / "a.bin"
    causes: dict[str, type[BaseException] | None] = {
        "a class that is not allowed": pickle.UnpicklingError,
        "a list": None,
        "empty": None,
    }
    for kind, cause in causes.items():
        path.write_bytes(PT[kind]())
        with pytest.raises(CheckpointError) as caught:
            list(pt_weights_iterator(path))
        assert caught.value.__suppress_context__
        assert isinstance(caught.value.__cause__, cause or type(None))


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_an_index_that_gives_a_tensor_to_a_shard_without_it(tmp_path: Path, suffix: str) -> None:
    shard = tmp_path / f"a{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save({"w": torch.ones(3)}, shard)
    index = tmp_path / f"model{suffix}.index.json"
    index.write_text(json.dumps({"weight_map": {"w": shard.name, "x": shard.name}}))
    makes = list(ITERATORS.values()) if suffix == ".safetensors" else [pt_weights_iterator]
    for make in makes:
        for way in MODES:
            with pytest.raises(CheckpointError) as caught:
                list(make(index, **way))
            check(caught.value, shard, "x")


def test_an_argument_is_no_error_of_contents(tmp_path: Path) -> None:
    for files, what in (([], ValueError), (tmp_path, ValueError), (tmp_path / "x", OSError)):
        with pytest.raises(what) as caught:
            one_by_one(files)
        assert not isinstance(caught.value, CheckpointError)


def test_it_is_a_value_error_that_can_be_pickled() -> None:
    error = CheckpointError("'/a' is wrong", "/a", "w")
    error.add_note("seen by rank 3") if hasattr(error, "add_note") else None
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is CheckpointError is shardahead.CheckpointError
    assert (str(again), again.path, again.tensor) == (str(error), "/a", "w")
    assert getattr(again, "__notes__", None) == getattr(error, "__notes__", None)
    assert isinstance(error, ValueError)
    assert not issubclass(CheckpointError, ContentsError)
    assert CheckpointError("'/a' is wrong", "/a").tensor is None


def check(error: CheckpointError, path: Path, tensor: str | None) -> None:
    assert type(error) is CheckpointError
    assert (error.path, error.tensor) == (str(path), tensor), str(error)
    assert str(path) in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.path, again.tensor) == (str(error), error.path, error.tensor)
