"""`slices=`: parts of tensors, bit for bit what narrowing the whole tensors gives, in every mode.

Which bytes are read for them is in test_slices_bytes.py, errors in test_slices_wrong.py and
test_slices_faults.py, files of torch in test_slices_pt.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import weights_support
from conftest import MakeMount, run_python
from hypothesis import HealthCheck, given, settings
from slices_support import WAYS, bits_of_parts, checkpoints, narrowed
from weights_support import MakeIterator, bits, buffered, one_by_one, random_tensor, save_file

from shardahead import CheckpointError, tensor_ranges

torch = pytest.importorskip("torch")
numpy = pytest.importorskip("numpy")

iterate = weights_support.iterate


def in_file_order(path: Path, whole: dict[str, Any]) -> dict[str, Any]:
    return {found.name: whole[found.name] for found in tensor_ranges(path)}


@given(checkpoint=checkpoints())
@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@pytest.mark.parametrize("way", [*WAYS, "disabled"])
@pytest.mark.parametrize("make", [one_by_one, buffered], ids=["one by one", "buffered"])
def test_any_part_is_what_narrowing_gives(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: MakeIterator,
    way: str,
    checkpoint: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    whole, parts = checkpoint
    path = tmp_path / "m.safetensors"
    save_file(whole, path)
    if way == "disabled":
        monkeypatch.setenv("SHARDAHEAD_DISABLE", "1")
    expected = bits_of_parts(in_file_order(path, whole), parts)
    slices: list[Any] = [parts, lambda name, _shape, _dtype: parts.get(name)]
    for each in slices:
        found = list(make(path, slices=each, **WAYS.get(way, {})))
        assert [bits(*weight) for weight in found] == expected
        for name, tensor in found:
            right = narrowed(whole[name], parts.get(name))
            if way == "pread":
                assert tensor.is_contiguous()
            else:
                assert tensor.stride() == right.stride()


def large(name: str, shape: tuple[int, ...], seed: int) -> dict[str, Any]:
    return {name: random_tensor(torch.bfloat16, shape, seed)}


@pytest.mark.parametrize("way", WAYS)
def test_large_parts_with_runs_near_and_far(
    tmp_path: Path, iterate: MakeIterator, way: str
) -> None:
    whole = {
        **large("rows", (2048, 1024), 1),
        **large("columns", (1024, 2048), 2),
        **large("experts", (8, 3, 300_001), 3),
        **large("middle", (4, 512, 1024), 4),
    }
    parts: dict[str, Any] = {
        "rows": (0, 256, 512),
        "columns": (1, 256, 512),
        "experts": (slice(2, 7), slice(1, 2), slice(1000, 200_000)),
        "middle": (1, 64, 128),
    }
    path = tmp_path / "m.safetensors"
    save_file(whole, path)
    found = [bits(*weight) for weight in iterate(path, slices=parts, **WAYS[way])]
    assert found == bits_of_parts(in_file_order(path, whole), parts)


def test_views_share_nothing_and_own_memory_is_packed(tmp_path: Path) -> None:
    whole = large("w", (64, 64), 1)
    path = tmp_path / "m.safetensors"
    save_file(whole, path)
    ((_, view),) = one_by_one(path, slices={"w": (1, 8, 16)}, mode="mmap")
    assert view.untyped_storage().nbytes() == 2 * (63 * 64 + 8)
    ((_, own),) = one_by_one(path, slices={"w": (1, 8, 16)}, mode="pread")
    assert own.untyped_storage().nbytes() == 2 * 64 * 8
    assert own.data_ptr() % 64 == 0
    for tensor in (view, own):
        tensor.zero_()  # it may be written to, and the file stays
    assert [bits(*w) for w in one_by_one(path)] == [bits("w", whole["w"])]


@pytest.mark.parametrize("way", WAYS)
def test_names_and_slices_together_and_progress(
    tmp_path: Path, iterate: MakeIterator, way: str
) -> None:
    whole = {f"t{i}": random_tensor(torch.float32, (8, 8), i) for i in range(4)}
    for number, names in enumerate((("t0", "t1"), ("t2", "t3"))):
        save_file({n: whole[n] for n in names}, tmp_path / f"m-{number}.safetensors")
    told: list[Any] = []
    asked: list[Any] = []

    def part(name: str, shape: tuple[int, ...], dtype: str) -> Any:
        asked.append((name, shape, dtype))
        return (1, 0, 2) if name == "t1" else None

    options: dict[str, Any] = {"names": ["t1", "t2"], "progress": told.append, **WAYS[way]}
    found = [bits(*weight) for weight in iterate(tmp_path, slices=part, **options)]
    assert found == [bits("t1", whole["t1"][:, :2]), bits("t2", whole["t2"])]
    assert sorted(asked) == [("t1", (8, 8), "F32"), ("t2", (8, 8), "F32")]
    assert [(p.consumed_bytes, p.total_bytes) for p in told] == [(64, 320), (320, 320)]


# ---- kinds of tensors ----


def write_checkpoint(path: Path, tensors: dict[str, tuple[str, list[int], bytes]]) -> Path:
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize("way", WAYS)
def test_four_bits_in_pairs(tmp_path: Path, iterate: MakeIterator, way: str) -> None:
    content = bytes(range(24))
    path = write_checkpoint(tmp_path / "m.safetensors", {"w": ("F4", [6, 8], content)})
    if not hasattr(torch, "float4_e2m1fn_x2"):
        pytest.skip("this torch has no float4_e2m1fn_x2")
    ((_, whole),) = iterate(path, **WAYS[way])
    assert tuple(whole.shape) == (6, 4)
    for part, right in (
        ((0, 1, 3), whole[1:3]),
        ((1, 2, 6), whole[:, 1:3]),
        ((slice(1, 5), slice(4, None)), whole[1:5, 2:]),
        ((1, 4, 4), whole[:, 2:2]),
    ):
        ((_, found),) = iterate(path, slices={"w": part}, **WAYS[way])
        assert (found.dtype, found.shape) == (right.dtype, right.shape)
        assert (
            found.contiguous().view(torch.uint8).tolist()
            == right.contiguous().view(torch.uint8).tolist()
        )
        if way != "pread":
            assert found.stride() == right.stride()
    for cut in ((1, 1, 4), (1, 0, 3), (1, 3, 3)):
        with pytest.raises(ValueError, match=r"'w' of shape \(6, 8\) has no part .*4 bits"):
            iterate(path, slices={"w": cut}, **WAYS[way])


def test_six_bits_have_ranges_of_whole_bytes(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "m.safetensors", {"w": ("F6_E2M3", [4, 8], bytes(24))})
    (whole,) = tensor_ranges(path)
    (part,) = tensor_ranges(path, slices={"w": (1, 4, 8)})
    assert part.ranges == ((whole.offset + 3, 3 + 3 * 6),)
    with pytest.raises(ValueError, match="6 bits, and it would cut a byte"):
        tensor_ranges(path, slices={"w": (1, 2, 8)})
    with pytest.raises(CheckpointError, match="this version of torch has no F6_E2M3"):
        list(one_by_one(path, slices={"w": (1, 4, 8)}))


@pytest.mark.parametrize("way", WAYS)
def test_a_dtype_that_only_the_safetensors_library_knows(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that this package has taken out of its own table, as if it were younger."""
    for table in (
        "shardahead.checkpoint.asked_parts.DTYPE_BITS",
        "shardahead.checkpoint.safetensors_header.DTYPE_BITS",
        "shardahead.weights.tensor_maker.DTYPE_BITS",
        "shardahead.weights.tensor_maker._DTYPES",
    ):
        module, _, name = table.rpartition(".")
        known = getattr(__import__(module, fromlist=[name]), name)
        monkeypatch.setattr(table, {k: v for k, v in known.items() if k != "F32"})
    whole = random_tensor(torch.float32, (6, 5), 1)
    path = tmp_path / "m.safetensors"
    save_file({"w": whole}, path)
    for part in ((0, 1, 3), (1, 1, 3), (1, 2, 2)):
        ((_, found),) = one_by_one(path, slices={"w": part}, **WAYS[way])
        assert bits("w", found) == bits("w", narrowed(whole, part))


def test_numbers_of_numpy(tmp_path: Path) -> None:
    whole = random_tensor(torch.float32, (6, 5), 1)
    path = tmp_path / "m.safetensors"
    save_file({"w": whole}, path)
    for kind in (numpy.int64, numpy.uint8):
        parts = [(kind(1), kind(2), kind(4)), (slice(kind(0), kind(3)), slice(kind(2), None))]
        for part in parts:
            ((_, found),) = one_by_one(path, slices={"w": part})
            assert bits("w", found) == bits("w", narrowed(whole, part))


# ---- other mounts, children, files of torch ----


@pytest.mark.parametrize("mount_options", [{}, {"keep_cache": False}, {"direct_io": True}])
def test_on_mounts_of_every_kind(
    tmp_path: Path, make_mount: MakeMount, iterate: MakeIterator, mount_options: dict[str, Any]
) -> None:
    whole = {**large("a", (512, 512), 1), **large("b", (3, 100_000), 2)}
    parts: dict[str, Any] = {"a": (1, 100, 200), "b": (slice(1, 3), slice(500, 600))}
    source = tmp_path / "source"
    source.mkdir()
    save_file(whole, source / "m.safetensors")
    mount = make_mount(source, **mount_options)
    weights = iterate(mount.mountpoint, slices=parts)
    found = [bits(*weight) for weight in weights]
    assert weights.mode == ("pread" if mount_options else "mmap")
    right = in_file_order(source / "m.safetensors", whole)
    assert found == bits_of_parts(right, parts)


@pytest.mark.parametrize("mode", ["mmap", "pread"])
def test_a_forked_child_goes_on_by_itself(tmp_path: Path, mode: str) -> None:
    whole = {f"t{i}": random_tensor(torch.uint8, (300, 1000 + i), i) for i in range(8)}
    save_file(whole, tmp_path / "m.safetensors")
    script = """
import json, os, sys, torch, shardahead
parts = lambda name, shape, dtype: (1, 100, 500)
weights = shardahead.safetensors_weights_iterator(sys.argv[1], mode=sys.argv[2], slices=parts)
right = [t[:, 100:500] for _, t in shardahead.safetensors_weights_iterator(sys.argv[1])]
first = [next(weights)[1] for _ in range(3)]
child = os.fork()
rest = [tensor for _, tensor in weights]
same = len(first + rest) == 8 and all(map(torch.equal, first + rest, right))
if child == 0:
    os._exit(0 if same else 1)
print(json.dumps([same, os.waitpid(child, 0)[1]]))
"""
    assert run_python(script, tmp_path, mode) == [True, 0]


def test_no_torch_is_needed_to_know_where_tensors_lie(tmp_path: Path) -> None:
    save_file({"w": torch.ones(4, 6)}, tmp_path / "m.safetensors")
    script = """
import json, sys, shardahead
found = shardahead.tensor_ranges(sys.argv[1], slices={"w": (0, 1, 2)})
print(json.dumps([found[0].shape, found[0].dtype, "torch" in sys.modules]))
"""
    assert run_python(script, os.fspath(tmp_path)) == [[4, 6], "F32", False]
