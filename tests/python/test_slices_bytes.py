"""Which bytes are read for parts of tensors, as page cache and slowfs tell; and `tensor_ranges`.

That the tensors are right is tested in test_slices.py.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest
from conftest import KIB, MIB, MakeMount, make_cold, resident_bytes, run_ranks
from weights_support import buffered, one_by_one, random_tensor, save_file

from shardahead import (
    prefetch_files,
    pt_weights_iterator,
    safetensors_weights_iterator,
    tensor_ranges,
)

torch = pytest.importorskip("torch")

# What the kernel may bring in around a range: what is read at once, and its own readahead.
AROUND_BYTES = 64 * KIB + 128 * KIB
ROWS, ROW_BYTES = 6, 8 * MIB  # farther apart than any gap that is read through
Ranges = list[tuple[int, int]]


def matrix(rows: int, row_bytes: int, seed: int) -> Any:
    return random_tensor(torch.uint8, (rows, row_bytes), seed)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A matrix with long rows, one with short ones, and one that no one wants."""
    tensors = {
        "a.long": matrix(ROWS, ROW_BYTES, 1),
        "b.short": matrix(4096, 4 * KIB, 2),
        "c.unwanted": matrix(8, MIB, 3),
    }
    (tmp_path / "source").mkdir()
    path = tmp_path / "source" / "m.safetensors"
    save_file(tensors, path)
    make_cold(path)
    return path


PARTS: dict[str, Any] = {"a.long": (1, MIB, MIB + 128 * KIB), "b.short": (0, 1024, 2048)}
WANTED = ["a.long", "b.short"]


def wanted_ranges(path: Path) -> Ranges:
    places = {found.name: found.offset for found in tensor_ranges(path)}
    rows = [(places["a.long"] + row * ROW_BYTES + MIB, 128 * KIB) for row in range(ROWS)]
    return [*rows, (places["b.short"] + 4 * MIB, 4 * MIB)]


def between(path: Path, wanted: Ranges) -> Ranges:
    """What lies well apart from all of them, and from the header."""
    ranges, at = [], 512 * KIB
    for offset, length in [*wanted, (path.stat().st_size + AROUND_BYTES, 0)]:
        begin, end = at, offset - AROUND_BYTES
        if begin < end:
            ranges.append((begin, end - begin))
        at = offset + length + AROUND_BYTES
    return ranges


def check_resident(path: Path, wanted: Ranges) -> None:
    for offset, length in wanted:
        assert resident_bytes(path, offset, length) == length, (offset, length)
    gaps = between(path, wanted)
    assert sum(length for _, length in gaps) > path.stat().st_size // 2
    for offset, length in gaps:
        assert resident_bytes(path, offset, length) == 0, (offset, length)


@pytest.mark.parametrize("make", [one_by_one, buffered], ids=["one by one", "buffered"])
@pytest.mark.parametrize("names", [WANTED, None])
def test_only_wanted_bytes_are_brought_in(path: Path, make: Any, names: Any) -> None:
    parts = PARTS if names else {**PARTS, "c.unwanted": (0, 3, 3)}
    weights = make(path, names=names, slices=parts)
    total = sum(int(tensor.sum()) for _, tensor in weights)
    assert total > 0
    weights.prefetch.wait()
    check_resident(path, wanted_ranges(path))
    report = weights.prefetch.report()
    assert 0 < report.planned_bytes - (ROWS * 128 * KIB + 4 * MIB) < 16 * KIB  # the header
    assert report.errors == ()


def test_without_a_prefetch_as_well(path: Path) -> None:
    weights = one_by_one(path, names=WANTED, slices=PARTS, prefetch=False)
    found = dict(weights)
    assert sum(resident_bytes(path, *each) for each in between(path, wanted_ranges(path))) == 0
    assert int(found["b.short"].sum()) > 0


def test_empty_parts_read_nothing(path: Path) -> None:
    empty: Any = dict.fromkeys(("a.long", "b.short", "c.unwanted"), (0, 2, 2))
    for mode in ("mmap", "pread"):
        found = dict(one_by_one(path, slices=empty, mode=mode))
        assert [tuple(t.shape) for t in found.values()] == [(0, ROW_BYTES), (0, 4 * KIB), (0, MIB)]
        assert resident_bytes(path, 512 * KIB) == 0


@pytest.mark.parametrize("strategy", ["auto", "fadvise"])
def test_tensor_ranges_are_spans(path: Path, strategy: Any) -> None:
    found = tensor_ranges(path, names=WANTED, slices=PARTS)
    spans: dict[str, Ranges] = {}
    for tensor in found:
        spans.setdefault(tensor.file, []).extend(tensor.ranges)
    assert spans == {str(path): wanted_ranges(path)}
    handle = prefetch_files(path, spans=spans, strategy=strategy)
    handle.wait()
    assert handle.report().planned_bytes == sum(length for _, length in wanted_ranges(path))
    check_resident(path, wanted_ranges(path))


def test_tensor_ranges_say_what_the_file_says(path: Path) -> None:
    data = path.read_bytes()
    make_cold(path)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    start = 8 + int.from_bytes(data[:8], "little")
    found = tensor_ranges(path)
    assert [tensor.name for tensor in found] == ["a.long", "b.short", "c.unwanted"]
    for tensor in found:
        entry = header[tensor.name]
        begin, end = (start + each for each in entry["data_offsets"])
        assert (tensor.dtype, list(tensor.shape)) == (entry["dtype"], entry["shape"])
        assert (tensor.offset, tensor.length, tensor.file) == (begin, end - begin, str(path))
        assert tensor.ranges == ((begin, end - begin),)
    assert resident_bytes(path, 512 * KIB) == 0
    (part,) = tensor_ranges(path, names=["b.short"], slices={"b.short": (1, 100, 200)})
    # Of gaps so short all is read.
    assert part.ranges == ((part.offset + 100, part.length - 4 * KIB + 100),)
    assert tensor_ranges(path, names=[]) == []


def test_tensor_ranges_follow_the_index(tmp_path: Path) -> None:
    for shard in ("a", "b"):
        save_file({"w": torch.ones(4), shard: torch.ones(2)}, tmp_path / f"{shard}.safetensors")
    weight_map = {"w": "b.safetensors", "b": "b.safetensors", "a": "a.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    found = tensor_ranges(tmp_path)
    assert [(t.name, Path(t.file).name) for t in found] == [
        (name, f"{Path(shard).stem}.safetensors") for name, shard in _in_order(tmp_path)
    ]
    assert [t.name for t in found if Path(t.file).name == "a.safetensors"] == ["a"]
    with pytest.raises(ValueError, match="names: none of the 1 names is a tensor: 'v'"):
        tensor_ranges(tmp_path, names=["v"])
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}))
    with pytest.raises(ValueError, match="gives the tensor 'x' to"):
        tensor_ranges(tmp_path)


def _in_order(folder: Path) -> list[tuple[str, str]]:
    """As the iterators give them."""
    holders = {"w": "b", "b": "b", "a": "a"}
    return [(name, holders[name]) for name, _ in one_by_one(folder)]


# ---- bytes that cross a link ----


@pytest.mark.parametrize("mount_options", [{"keep_cache": False}, {"direct_io": True}])
def test_reading_goes_over_short_gaps_and_not_over_long_ones(
    path: Path, make_mount: MakeMount, mount_options: dict[str, Any]
) -> None:
    mount = make_mount(path.parent, round_trip_ms=1, rate_mb_per_s=300, **mount_options)
    parts = {**PARTS, "b.short": (1, 1024, 2048)}
    weights = one_by_one(mount.mountpoint, mode="pread", names=WANTED, slices=parts)
    found = dict(weights)
    assert torch.equal(found["a.long"], dict(one_by_one(path))["a.long"][:, MIB : MIB + 128 * KIB])
    served = mount.counters().bytes_served
    # Each row of the one; all of the other, but what lies between the pieces that threads read.
    wanted = ROWS * 128 * KIB + 16 * MIB - 16 * 3 * KIB
    # The kernel may read ahead after each piece, and after each of the rows.
    assert wanted <= served < wanted + ROWS * 256 * KIB + 2 * MIB


@pytest.mark.parametrize("keep_cache", [True, False])
def test_two_ranks_with_halves_read_each_byte_once(
    tmp_path: Path, make_mount: MakeMount, keep_cache: bool
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    whole = {}
    for number in range(2):
        tensors = {
            f"{number}.{kind}.{i}": matrix(64, 64 * KIB, 10 * number + i)
            for i, kind in enumerate(("rows", "columns") * 2)
        }
        save_file(tensors, source / f"m-{number}.safetensors")
        whole.update(tensors)
    mount = make_mount(source, rate_mb_per_s=300, round_trip_ms=1, keep_cache=keep_cache)
    script = """
import json, os, sys, torch, shardahead, zlib
rank = int(os.environ["LOCAL_RANK"])
def half(name, shape, dtype):
    dim = 0 if ".rows." in name else 1
    return (dim, rank * shape[dim] // 2, (rank + 1) * shape[dim] // 2)
weights = shardahead.safetensors_weights_iterator(sys.argv[1], slices=half)
found = {name: zlib.crc32(tensor.contiguous().numpy().tobytes()) for name, tensor in weights}
print(json.dumps([found, weights.prefetch.report().errors == (), weights.mode]))
"""
    ranks = run_ranks(script, 2, mount.mountpoint)
    for rank, (found, fine, mode) in enumerate(ranks):
        assert (fine, mode) == (True, "mmap" if keep_cache else "pread")
        for name, tensor in whole.items():
            dim = 0 if ".rows." in name else 1
            size = tensor.shape[dim] // 2
            half = tensor.narrow(dim, rank * size, size).contiguous()
            assert found[name] == zlib.crc32(half.numpy().tobytes()), name
    total = sum(shard.stat().st_size for shard in source.iterdir())
    if not keep_cache:  # ranks that are not in step read by themselves
        return
    assert total <= mount.counters().bytes_served <= total * 1.02


@pytest.mark.parametrize("mode", ["mmap", "pread"])
def test_a_small_window_and_dropping_behind(path: Path, mode: Any) -> None:
    options: dict[str, Any] = {"window_bytes": MIB, "drop_after": True, "mode": mode}
    weights = one_by_one(path, names=WANTED, slices=PARTS, **options)
    sums = {}
    for name, tensor in weights:
        sums[name] = int(tensor.sum())
        del tensor  # what is held is mapped, and what is mapped stays
    assert resident_bytes(path) == 0
    whole = dict(one_by_one(path, names=WANTED))
    assert sums == {
        "a.long": int(whole["a.long"][:, MIB : MIB + 128 * KIB].sum()),
        "b.short": int(whole["b.short"][1024:2048].sum()),
    }


def test_progress_of_torch_files_is_in_bytes_of_files(tmp_path: Path) -> None:
    file = tmp_path / "m.pt"
    torch.save({"a": matrix(64, KIB, 1), "b": matrix(64, KIB, 2)}, file)
    told: list[Any] = []
    parts: Any = {"a": (0, 0, 1)}
    names = [n for n, _ in pt_weights_iterator(file, slices=parts, progress=told.append)]
    assert names == ["a", "b"]
    size = file.stat().st_size
    assert [p.consumed_bytes for p in told] == [size // 65, size]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have a mount read ahead so far")
@pytest.mark.parametrize("readahead_kib", [1024, 16 * 1024])
@pytest.mark.parametrize(
    "options", [{"names": lambda name: name in "beh"}, {"slices": lambda *_: (0, 1, 3)}]
)
def test_a_mount_that_reads_ahead_far_does_not_read_what_is_not_wanted(
    tmp_path: Path, make_mount: MakeMount, readahead_kib: int, options: dict[str, Any]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    save_file({name: matrix(6, 3 * MIB, 1) for name in "abcdefgh"}, source / "m.safetensors")
    mount = make_mount(source, readahead_kib=readahead_kib, rate_mb_per_s=500, round_trip_ms=1)
    weights = safetensors_weights_iterator(mount.mountpoint, **options)
    wanted = sum(len(tensor.numpy().tobytes()) for _, tensor in weights)
    mount.wait_until_idle()
    assert mount.counters().bytes_served <= 1.02 * wanted + MIB
