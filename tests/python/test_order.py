"""The order in which the tensors of a shard are handed out, and how far it is consumed then."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from shardahead.checkpoint.order import consumed_offsets, in_order, order_of
from shardahead.checkpoint.safetensors_header import TensorRange
from shardahead.prefetch.options import Mode, Options
from shardahead.weights.iterators import weights_of
from shardahead.weights.safetensors_load import Load


def ranges(*lengths: int, start: int = 100) -> list[TensorRange]:
    """Tensors that adjoin, named so that the order of their names is the reverse one."""
    made, offset = [], start
    for number, length in enumerate(lengths):
        made.append(TensorRange(f"t{len(lengths) - number:03d}", offset, length))
        offset += length
    return made


def test_order_by_name_is_that_of_the_names() -> None:
    names = ["layers.10.w", "layers.2.w", "a", "B", "é"]
    tensors = [TensorRange(name, 8 * i, 8) for i, name in enumerate(names)]
    assert [t.name for t in in_order(tensors, "name")] == sorted(names)
    assert in_order(tensors, "offset") == tuple(tensors)


def test_in_the_order_of_the_file_each_tensor_ends_what_is_consumed() -> None:
    tensors = ranges(5, 0, 1, 1000)
    assert consumed_offsets(tensors) == [tensor.end for tensor in tensors]


@pytest.mark.parametrize("seed", range(20))
def test_nothing_that_is_to_come_is_consumed(seed: int) -> None:
    draw = random.Random(seed)
    tensors = ranges(*(draw.choice((0, 1, 64, 4096, 10**6)) for _ in range(200)))
    handed_out = list(tensors)
    draw.shuffle(handed_out)
    offsets = consumed_offsets(handed_out)
    assert offsets == sorted(offsets)
    assert offsets[-1] == max(tensor.end for tensor in tensors)
    for number, offset in enumerate(offsets):
        to_come = [tensor.offset for tensor in handed_out[number + 1 :]]
        assert offset == min(to_come, default=offset)


def test_a_shard_that_the_window_cannot_hold_comes_in_its_own_order() -> None:
    assert order_of("name", 100, None) == "name"
    assert order_of("name", 100, 400) == "name"
    assert order_of("name", 101, 400) == "offset"
    assert order_of("offset", 1, 400) == "offset"


@pytest.mark.parametrize("mode", ["mmap", "pread"])
@pytest.mark.parametrize("max_workers", [None, 2])
def test_weights_come_in_the_order_of_the_names(
    tmp_path: Path, mode: Mode, max_workers: int | None
) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors")
    save_file = pytest.importorskip("safetensors.torch").save_file
    files = [tmp_path / "model-1.safetensors", tmp_path / "model-2.safetensors"]
    for number, path in enumerate(files):
        tensors = {}
        for layer in range(4):
            name = f"layers.{layer}.{number}"
            tensors[f"{name}.weight"] = torch.randn(300_000).to(torch.bfloat16)
            tensors[f"{name}.scale"] = torch.randn(4)
        save_file(tensors, path)
    load = Load(
        files,
        options=Options(mode=mode),
        topology=(0, 1),
        prefetch=True,
        names=None,
        drop_after=False,
        progress=None,
        order="name",
    )
    done = []
    found = list(weights_of(load, max_workers, lambda: done.append(1)))
    expected = []
    for path in files:
        with safetensors.safe_open(path, framework="pt") as shard:
            assert list(shard.keys()) != list(shard.offset_keys())
            expected += [(name, shard.get_tensor(name)) for name in shard.keys()]  # noqa: SIM118
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(found, expected, strict=True))
    assert len(done) == len(files)
