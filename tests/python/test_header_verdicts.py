"""Every way to load takes the same safetensors files, and refuses the others with one and the same
ValueError, which names the file and what is wrong, before any tensor of it is handed out.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import tarfile
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import KIB, MIB, finish, start_python, worker_threads
from weights_support import bits, buffered, one_by_one, plainly

from shardahead import WeightsIterator
from shardahead.checkpoint.dtypes import DTYPE_BITS
from shardahead.checkpoint.safetensors_header import (
    MAX_DEPTH,
    MAX_TENSORS,
    MAX_VALUES,
    parse_header,
    read_header,
)
from shardahead.weights import tensor_maker as tensors

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors")

WAYS: dict[str, Any] = {
    "auto": one_by_one,
    "mmap": lambda path: one_by_one(path, mode="mmap"),
    "pread": lambda path: one_by_one(path, mode="pread"),
    "buffered": buffered,
    "buffered pread": lambda path: buffered(path, mode="pread"),
    "no prefetch": lambda path: one_by_one(path, prefetch=False),
    "no prefetch, pread": lambda path: one_by_one(path, prefetch=False, mode="pread"),
    "no prefetch, buffered": lambda path: buffered(path, prefetch=False),
    "names": lambda path: one_by_one(path, names=lambda _name: True),
    "names, pread": lambda path: one_by_one(path, names=lambda _name: True, mode="pread"),
    "names, no prefetch": lambda path: one_by_one(path, names=lambda _name: True, prefetch=False),
    "progress": lambda path: one_by_one(path, progress=lambda _progress: None),
    "disabled": one_by_one,
}


def outcome(way: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any] | str:
    """The tensors, or what the ValueError says. Nothing else may come."""
    if way == "disabled":
        monkeypatch.setenv("SHARDAHEAD_DISABLE", "1")
    found: list[Any] = []
    try:
        weights: WeightsIterator = WAYS[way](path)
        for name, tensor in weights:
            found.append(bits(name, tensor))
    except ValueError as error:
        assert found == []
        return str(error)
    finally:
        monkeypatch.delenv("SHARDAHEAD_DISABLE", raising=False)
    return found


def outcomes(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[Any] | str]:
    return [outcome(way, path, monkeypatch) for way in WAYS]


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: Any, shape: Any, begin: Any, end: Any, **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end], **more}


FOUR = entry("U8", [4], 0, 4)
PLAIN = json.dumps(FOUR).encode()

#: The header, its data, and what the message says.
REFUSED: dict[str, tuple[Any, bytes, str]] = {
    "a tensor twice": (b'{"a":' + PLAIN + b',"a":' + PLAIN + b"}", b"1234", "'a' is there twice"),
    "a field twice": (b'{"a":{"dtype":"I8",' + PLAIN[1:] + b"}", b"1234", "'dtype' is there"),
    "metadata twice": (b'{"__metadata__":{"k":"1","k":"2"}}', b"", "'k' is there twice"),
    "two metadata": (b'{"__metadata__":{},"__metadata__":{}}', b"", "'__metadata__' is there"),
    "overlap": ({"a": FOUR, "b": entry("U8", [4], 2, 6)}, b"123456", "'b' begins at byte"),
    "the same bytes": ({"a": FOUR, "b": FOUR}, b"1234", "'b' begins at byte"),
    "gap": ({"a": FOUR, "b": entry("U8", [4], 5, 9)}, b"123456789", "'b' begins at byte"),
    "gap at the start": ({"a": entry("U8", [4], 1, 5)}, b"12345", "'a' begins at byte"),
    "bytes behind": ({"a": FOUR}, b"12345", "its tensors end at byte"),
    "no tensors but bytes": ({}, b"1", "its tensors end at byte"),
    "negative": ({"a": entry("U8", [4], -1, 3)}, b"1234", "'a' lies in bytes"),
    "backwards": ({"a": entry("U8", [4], 4, 0)}, b"1234", "'a' lies in bytes"),
    "beyond the file": ({"a": entry("U8", [8], 0, 8)}, b"1234", "'a' lies in bytes"),
    "far beyond": ({"a": entry("U8", [4], 2**63, 2**63 + 4)}, b"1234", "'a' lies in bytes"),
    "of many digits": (b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,' + b"9" * 4290 + b"]}}",
                       b"1234", "'a' lies in bytes"),
    "boolean offset": ({"a": entry("U8", [4], False, 4)}, b"1234", "'a' has data_offsets"),
    "float offset": ({"a": entry("U8", [4], 0, 4.0)}, b"1234", "'a' has data_offsets"),
    "offset in quotes": ({"a": entry("U8", [4], "0", 4)}, b"1234", "'a' has data_offsets"),
    "three offsets": ({"a": {**FOUR, "data_offsets": [0, 4, 4]}}, b"1234", "'a' has data_offsets"),
    "no shape": ({"a": {"dtype": "U8", "data_offsets": [0, 4]}}, b"1234", "'a' has no 'shape'"),
    "no dtype": ({"a": {"shape": [4], "data_offsets": [0, 4]}}, b"1234", "'a' has no 'dtype'"),
    "boolean size": ({"a": entry("U8", [True], 0, 1)}, b"1", "'a' has a shape"),
    "negative size": ({"a": entry("U8", [-4], 0, 4)}, b"1234", "'a' has a shape"),
    "float size": ({"a": entry("U8", [4.0], 0, 4)}, b"1234", "'a' has a shape"),
    "a size as shape": ({"a": entry("U8", 4, 0, 4)}, b"1234", "'a' has a shape"),
    "a size of 2^64": ({"a": entry("U8", [0, 2**64], 0, 0)}, b"", "'a' has a shape"),
    "too many elements": ({"a": entry("U8", [2**32, 2**32, 0], 0, 0)}, b"", "'a' of U8 with"),
    "too short": ({"a": entry("F32", [2], 0, 4)}, b"1234", "'a' of F32 with shape [2] has 4"),
    "too long": ({"a": entry("F32", [1], 0, 8)}, b"12345678", "'a' of F32 with shape [1] has 8"),
    "bytes of none": ({"a": entry("U8", [0], 0, 4)}, b"1234", "'a' of U8 with shape [0] has 4"),
    "half a byte": ({"a": entry("F4", [3], 0, 2)}, b"12", "'a' of F4 with shape [3] has 2"),
    "pairs of one": ({"a": entry("F4", [2, 1], 0, 1)}, b"1", "'a' cannot be made"),
    "no dtype of torch": ({"a": FOUR, "b": entry("F6_E2M3", [4], 4, 7)}, b"1234567",
                          "'b' cannot be made"),
    "dtype not known": ({"a": FOUR, "b": entry("Q9", [4], 4, 8)}, b"12345678", "dtype that is not"),
    "dtype is a list": ({"a": entry(["U8"], [4], 0, 4)}, b"1234", "'a' has a dtype"),
    "dtype in small letters": ({"a": entry("u8", [4], 0, 4)}, b"1234", "'a' has a dtype"),
    "an entry is a list": ({"a": ["U8", [4], [0, 4]]}, b"1234", "'a' has an entry"),
    "a number in metadata": ({"__metadata__": {"n": 1}, "a": FOUR}, b"1234", "'n' is not a string"),
    "null in metadata": ({"__metadata__": {"n": None}}, b"", "'n' is not a string"),
    "metadata is a list": ({"__metadata__": []}, b"", "__metadata__ is no object"),
    "NaN": (b'{"a":' + PLAIN[:-1] + b',"x":NaN}}', b"1234", "NaN is no number"),
    "Infinity": (b'{"a":' + PLAIN[:-1] + b',"x":-Infinity}}', b"1234", "Infinity is no number"),
    "1e999": (b'{"a":' + PLAIN[:-1] + b',"x":1e999}}', b"1234", "out of range"),
    "half a character": (b'{"\\ud800":' + PLAIN + b"}", b"1234", "surrogates not allowed"),
    "not UTF-8": (b'{"\xff":' + PLAIN + b"}", b"1234", "UnicodeDecodeError"),
    "UTF-16": (json.dumps({"a": FOUR}).encode("utf-16"), b"1234", "UnicodeDecodeError"),
    "a mark of UTF-8": (b"\xef\xbb\xbf{}", b"", "JSONDecodeError"),
    "a NUL behind": (b"{}\0", b"", "JSONDecodeError"),
    "a list": ([], b"", "it is []"),
    "deep": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"", "100000"),
    "deep lists": (b"[" * 100_000, b"", "100000 levels"),
}  # fmt: skip

TAKEN: dict[str, tuple[Any, bytes]] = {
    "nothing": ({}, b""),
    "metadata alone": ({"__metadata__": {"a": "b"}}, b""),
    "metadata null": ({"__metadata__": None, "a": FOUR}, b"1234"),
    "spaces": (b' \n{ "a" :\t' + PLAIN + b" } \r\n ", b"1234"),
    "more fields": ({"a": {**FOUR, "x": [1.5, None, {"y": True}]}}, b"1234"),
    "any name": ({"": entry("U8", [1], 0, 1), "a\0\n": entry("U8", [1], 1, 2)}, b"12"),
    "characters in two halves": (b'{"\\ud83d\\ude00":' + PLAIN + b"}", b"1234"),
    "scalar": ({"a": entry("F32", [], 0, 4)}, b"1234"),
    "nothing between": ({"b": FOUR, "a": entry("F16", [0, 7], 0, 0),
                         "c": entry("I64", [3, 0], 4, 4)}, b"1234"),
    "none of many": ({"a": entry("U8", [0, 2**32, 2**32], 0, 0)}, b""),
    "none of doubles": ({"a": entry("F64", [2**61, 0], 0, 0)}, b""),
    "pairs": ({"a": entry("F4", [3, 4], 0, 6)}, b"123456"),
    "no pairs": ({"a": entry("F4", [0, 4], 0, 0)}, b""),
    "anywhere": ({"a": entry("U8", [1], 0, 1), "b": entry("C64", [1], 1, 9)}, b"123456789"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_wrong_is_one_error_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    header, data, says = REFUSED[kind]
    path = write(tmp_path / "model-7.safetensors", header, data)
    messages = outcomes(path, monkeypatch)
    assert len(set(map(str, messages))) == 1
    assert isinstance(messages[0], str)
    assert repr(str(path)) in messages[0]
    assert says in messages[0]
    assert messages[0].isprintable()
    assert len(messages[0]) < 1000 + len(str(path))


@pytest.mark.parametrize("kind", TAKEN)
def test_what_the_library_takes_all_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    header, data = TAKEN[kind]
    path = write(tmp_path / "a.safetensors", header, data)
    expected: list[Any] | str
    try:
        expected = plainly(path)
    except RuntimeError:  # torch makes no tensor of bytes that lie askew for it; here none do
        assert kind == "anywhere"
        expected = outcome("no prefetch", path, monkeypatch)
    for found in outcomes(path, monkeypatch):
        assert found == expected


def test_a_dtype_that_only_a_younger_library_knows_is_made_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewer = {name: bits for name, bits in DTYPE_BITS.items() if name != "F32"}
    for module in ("checkpoint.safetensors_header", "weights.tensor_maker"):
        monkeypatch.setattr(f"shardahead.{module}.DTYPE_BITS", fewer)
    monkeypatch.delitem(tensors._DTYPES, "F32")
    path = write(tmp_path / "a.safetensors", {"a": entry("F32", [2], 0, 8)}, b"12345678")
    expected = plainly(path)
    assert [outcome(way, path, monkeypatch) for way in ("mmap", "pread")] == [expected] * 2
    bad = write(tmp_path / "b.safetensors", {"a": entry("F32", [1], 0, 8)}, b"12345678")
    for way in ("mmap", "pread"):
        assert "'a' cannot be made" in outcome(way, bad, monkeypatch)


# ---- files of another kind ----


def tar() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights"))
    return made.getvalue()


def archive() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("archive/data.pkl", b"x")
    return made.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4976698672\n"
KINDS: dict[str, tuple[bytes, str]] = {
    "GGUF": (b"GGUF" + bytes([3, 0, 0, 0]) + bytes(100), "a GGUF file"),
    "short GGUF": (b"GGUF", "a GGUF file"),
    "zip": (archive(), "a zip archive, as torch.save writes"),
    "pickle": (pickle.dumps({"a": 1}), "a pickle"),
    "gzip": (gzip.compress(b"x" * 1000), "compressed by gzip"),
    "tar": (tar(), "a tar archive"),
    "git-lfs": (LFS, "a pointer of git-lfs"),
    "HTML": (b"\n<!DOCTYPE html>\n<html><body>Not found", "a web page"),
    "XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied', "XML"),
    "an index": (b'{\n "metadata": {"total_size": 1}, "weight_map": {}}', "JSON"),
    "zeros": (bytes(10_000), "zeros"),
    "nothing": (b"", "it has 0 bytes"),
    "7 bytes": (b"\x10" * 7, "it has 7 bytes"),
    "8 bytes": (b"\x10" + bytes(7), "a header of 16 bytes in a file of 8"),
    "cut, of the length of gzip's magic": ((0x088B1F).to_bytes(8, "little") + b'{"a":',
                                           "a header of 559903 bytes in a file"),
    "cut, of the length of a pickle's": ((0x280).to_bytes(8, "little") + b'{"a":',
                                         "a header of 640 bytes in a file"),
    "half a header": ((200).to_bytes(8, "little") + b'{"a":', "a header of 200 bytes in a file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_called_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    content, says = KINDS[kind]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    messages = outcomes(path, monkeypatch)
    assert len(set(map(str, messages))) == 1
    assert str(messages[0]).startswith(f"{str(path)!r}: not a safetensors file")
    assert says in messages[0]


@pytest.mark.parametrize("name", ["model-Q4.gguf", "pytorch_model.bin", "model.pt"])
def test_a_folder_of_another_kind_is_refused_before_any_thread_starts(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(KINDS["GGUF"][0])
    before = worker_threads(), threading.active_count()
    for way in WAYS:
        with monkeypatch.context() as patched:
            if way == "disabled":
                patched.setenv("SHARDAHEAD_DISABLE", "1")
            with pytest.raises(ValueError, match=r"no shards \(\*\.safetensors\) in the folder"):
                WAYS[way](tmp_path)
    assert (worker_threads(), threading.active_count()) == before


# ---- sizes that mean harm ----

HOSTILE: dict[str, tuple[bytes, str]] = {
    "tensors": (b'{"a":' + PLAIN + b"," + b"".join(
        b'"%x":{"dtype":"U8","shape":[0],"data_offsets":[4,4]},' % i for i in range(MAX_TENSORS + 8)
    )[:-1] + b"}", f"tensors, the limit is {MAX_TENSORS + 1}"),
    "values": (b'{"a":{"x":[' + b"0," * (MAX_VALUES + 1) + b"0]}}", "values, the limit is"),
    "objects in a field": (b'{"a":{"x":[' + b"{}," * (MAX_TENSORS + 8) + b"{}]}}", "tensors, the"),
    "levels": (b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "levels, the limit is 127"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_header_that_would_fill_memory_is_refused_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    text, says = HOSTILE[kind]

    def parsed(*_arguments: Any, **_options: Any) -> Any:
        raise AssertionError("it was parsed")

    path = write(tmp_path / "a.safetensors", text, b"1234")
    monkeypatch.setattr(json, "loads", parsed)
    for way in ("mmap", "pread", "no prefetch", "names"):
        message = outcome(way, path, monkeypatch)
        assert says in message
        assert str(path) in message


PEAK = """
import sys
from shardahead.checkpoint.safetensors_header import read_header
try:
    read_header(sys.argv[1])
except ValueError as error:
    print(str(error)[-60:])
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


def test_a_header_of_99_mb_takes_no_more_than_a_few_times_that(tmp_path: Path) -> None:
    one = b'"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
    path = write(tmp_path / "a.safetensors", b"{" + one * (99_000_000 // len(one)) + b"}")
    done = finish(start_python(PEAK, path))
    assert done.returncode == 0, done.stderr
    says, peak_kib = done.stdout.splitlines()
    assert "tensors, the limit is" in says
    assert int(peak_kib) * KIB < 400 * MIB


def test_commas_and_brackets_in_names_and_texts_do_not_count() -> None:
    many = "[{," * (MAX_VALUES // 2)
    text = json.dumps({"__metadata__": {"tags": many + '\\"' + many}, '{"[': FOUR}).encode()
    content = len(text).to_bytes(8, "little") + text + b"1234"
    (tensor,) = parse_header("a", content, len(content)).tensors
    assert tensor.name == '{"['


def test_200_000_tensors_are_read(tmp_path: Path) -> None:
    count = 200_000
    header = {f"u{i}": entry("U8", [1, 2], 2 * i, 2 * i + 2) for i in range(count)}
    path = write(tmp_path / "a.safetensors", header, bytes(2 * count))
    assert len(read_header(str(path)).tensors) == count


@pytest.mark.parametrize("way", WAYS)
def test_a_tensor_of_no_bytes_or_of_half_ones_takes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Neither a file in memory nor /proc, of which a hostile header would ask a million times."""

    def refuse(*_arguments: Any, **_options: Any) -> int:
        raise OSError("no file in memory here")

    header: dict[str, Any] = {f"t{i}": entry("F16", [0, 2], 0, 0) for i in range(500)}
    path = write(tmp_path / "a.safetensors", {**header, "z": entry("F4", [2, 2], 0, 2)}, b"12")
    expected = plainly(path)
    monkeypatch.setattr(os, "memfd_create", refuse)
    monkeypatch.setattr(safetensors, "safe_open", refuse)
    found = outcome(way, path, monkeypatch)
    assert len(found) == 501
    assert sorted(found) == sorted(expected)
