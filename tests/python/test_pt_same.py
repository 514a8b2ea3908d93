"""pt_weights_iterator against torch.load(weights_only=True) over generated files, in every mode.

Whatever torch reads must come out the same or be refused; here nothing has to be refused.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pt_support import by_torch, described, items_of, packed, records_of, saved

from shardahead import pt_weights_iterator
from shardahead.prefetch.options import Mode

torch = pytest.importorskip("torch")

MODES: list[tuple[Mode, bool, str]] = [
    ("auto", True, ""),
    ("mmap", True, ""),
    ("mmap", False, ""),
    ("pread", True, ""),
    ("auto", True, "1"),
]


def read_in(path: Path, mode: Mode, prefetch: bool, disable: str) -> list[tuple[Any, Any]]:
    os.environ["SHARDAHEAD_DISABLE"] = disable
    try:
        weights = pt_weights_iterator(path, mode=mode, prefetch=prefetch)
        return [(name, described(tensor)) for name, tensor in weights]
    finally:
        del os.environ["SHARDAHEAD_DISABLE"]


def assert_same(path: Path, expected: list[tuple[Any, Any]]) -> None:
    for how in MODES:
        assert read_in(path, *how) == expected, how


DENSE = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.int64,
         torch.bool, torch.uint8, torch.complex64, torch.float8_e4m3fn]  # fmt: skip
BASE = torch.arange(60, dtype=torch.float32).reshape(6, 10)
SHIFTED = torch.view_as_complex(torch.arange(24, dtype=torch.float32).reshape(3, 4, 2))
GRID = torch.tensor([[0.0, 2, 0, 1], [0, 0, 3, 0], [4, 0, 0, 0], [0, 0, 0, 5]])


def quiet(make: Any) -> Any:
    with warnings.catch_warnings():  # sparse and quantized tensors are announced as beta
        warnings.simplefilter("ignore")
        return make()


def odd_tensors() -> dict[str, Any]:
    """One of each kind that is not just bytes in a row."""
    return {
        "rows": BASE[2:4],
        "turned": BASE.t(),
        "inner": BASE[1:5:2, 3:7],
        "expanded": BASE[0].expand(4, 10),
        "tied": BASE,
        "parameter": torch.nn.Parameter(torch.ones(3, 5)),
        "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "grad": torch.full((3,), 2.0, requires_grad=True),
        "nothing": torch.empty(0, 7),
        "scalar": torch.tensor(3.5),
        "conj": SHIFTED.conj(),
        "neg": SHIFTED.clone().conj().imag,
        "meta": torch.empty(4, 9, device="meta"),
        "coo": GRID.to_sparse(),
        "double coo": quiet(lambda: torch.sparse_coo_tensor([[1, 1]], [2.0, 3.0], (4,))),
        "csr": quiet(GRID.to_sparse_csr),
        "csc": quiet(GRID.to_sparse_csc),
        "bsr": quiet(lambda: GRID.to_sparse_bsr((2, 2))),
        "bsc": quiet(lambda: GRID.to_sparse_bsc((2, 2))),
        "quantized": quiet(lambda: torch.quantize_per_tensor(GRID, 0.5, 3, torch.quint8)),
        "by channel": quiet(
            lambda: torch.quantize_per_channel(GRID, torch.ones(4), torch.zeros(4), 0, torch.qint8)
        ),
    }


ODD = odd_tensors()
NO_TENSORS = st.sampled_from([3, "text", None, 2.5, [1, [2]], {"a": (1, 2)}, torch.float16])


@st.composite
def dense(draw: st.DrawFn) -> Any:
    dtype = draw(st.sampled_from(DENSE))
    shape = draw(st.lists(st.integers(0, 9), max_size=3))
    return torch.randint(0, 2, shape).to(dtype)


CONTENT = st.dictionaries(
    st.one_of(st.text(max_size=9), st.integers(0, 9)),
    st.one_of(dense(), st.sampled_from(sorted(ODD)).map(ODD.__getitem__), NO_TENSORS),
    max_size=6,
)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """What torch.save writes of such a dictionary, now or once, or packed anew in some way."""
    content = draw(CONTENT)
    if draw(st.booleans()):
        content = OrderedDict(content)
    kind = draw(st.sampled_from(["saved", "old", "packed", "packed"]))
    if kind == "old":
        with tempfile.TemporaryFile() as file:
            # Saving of old knows no storage without bytes.
            old = {k: v for k, v in content.items() if not (torch.is_tensor(v) and v.is_meta)}
            torch.save(old, file, _use_new_zipfile_serialization=False)
            file.seek(0)
            return file.read()
    archive = saved(content)
    if kind == "saved":
        return archive
    records = records_of(archive)
    deflated = draw(st.sets(st.sampled_from([name for name, _ in records])))
    if draw(st.booleans()):
        deflated = draw(st.sampled_from([set(), {name for name, _ in records}]))
    if draw(st.booleans()):  # which of the two is meant is torch's to say
        name, data = draw(st.sampled_from(records))
        records.insert(draw(st.integers(1, len(records))), (name, data[::-1]))
    if draw(st.booleans()):  # something that no tensor is of
        records.append(("archive/data/999", bytes(draw(st.integers(0, 300)))))
    return packed(
        records,
        deflates=deflated.__contains__,
        alignment=draw(st.sampled_from([1, 4, 64, 4096])),
        zip64=draw(st.booleans()),
        descriptors=draw(st.booleans()),
        comment=draw(st.sampled_from([b"", b"a comment", b"PK\5\6" + bytes(40)])),
    )


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=files())
@example(content=saved({}) + packed([]))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_torch_reads_or_an_error(folder: Path, content: bytes) -> None:
    path = folder / "a.bin"
    path.write_bytes(content)
    try:
        found = by_torch(path)
    except Exception:
        for how in MODES:
            with pytest.raises(ValueError, match=r"a\.bin' "):
                read_in(path, *how)
    else:
        assert_same(path, items_of(found))
