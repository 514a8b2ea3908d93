"""Tensors that a consumer is given and will not look at, or not at all rows: what comes into the
page cache of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import KIB, MIB, MakeMount, eventually

from shardahead import Options
from shardahead.prefetch.options import Mode
from shardahead.weights.iterators import WeightsIterator, weights_of
from shardahead.weights.safetensors_load import Load, UsedRows

TENSORS = 24
# Of each shard three tensors in a row, of the last none.
SKIPPED = ["0.2", "0.3", "0.4", "1.5", "1.6", "1.7", *(f"2.{j}" for j in range(8))]
WORKERS = [None, 2]


def iterate(
    folder: Path,
    used_rows: UsedRows | None,
    workers: int | None = None,
    **options: Any,
) -> WeightsIterator:
    load = Load(
        folder,
        options=Options(**options),
        topology=(0, 1),
        prefetch=True,
        names=None,
        drop_after=False,
        progress=None,
        used_rows=used_rows,
    )
    return weights_of(load, workers)


def all_but_skipped(name: str, shape: Sequence[int]) -> tuple[int, int] | None:
    assert shape == (MIB,)
    return (0, 0) if name in SKIPPED else None


def none(_name: str, _shape: Sequence[int]) -> tuple[int, int]:
    return 0, 0


def second_quarter(_name: str, shape: Sequence[int]) -> tuple[int, int]:
    return shape[0] // 4, shape[0] // 2


def value_of(name: str) -> int:
    shard, number = name.split(".")
    return 8 * int(shard) + int(number)


@pytest.mark.parametrize("workers", WORKERS)
def test_what_is_not_looked_at_does_not_cross_the_link(
    numbered: Path, make_mount: MakeMount, workers: int | None
) -> None:
    mount = make_mount(numbered)
    names = []
    with iterate(mount.mountpoint, all_but_skipped, workers) as weights:
        for name, tensor in weights:
            names.append(name)
            assert tensor.shape == (MIB,)
            if name not in SKIPPED:
                assert bool((tensor == value_of(name)).all())
            del tensor
        assert weights.prefetch is not None
        report = weights.prefetch.report()
    assert names == [f"{i}.{j}" for i in range(3) for j in range(8)]
    assert report.complete
    mount.wait_until_idle()
    needed = (TENSORS - len(SKIPPED)) * MIB
    # Headers, and whole pages where a tensor begins or ends.
    assert needed <= mount.counters().bytes_served <= needed + 3 * 64 * KIB


@pytest.mark.parametrize("workers", WORKERS)
def test_rows_that_are_not_looked_at_do_not_cross_the_link(
    numbered: Path, make_mount: MakeMount, workers: int | None
) -> None:
    mount = make_mount(numbered)
    with iterate(mount.mountpoint, second_quarter, workers) as weights:
        for name, tensor in weights:
            assert tensor.shape == (MIB,)
            assert bool((tensor[MIB // 4 : MIB // 2] == value_of(name)).all())
            del tensor
        assert weights.prefetch is not None
        report = weights.prefetch.report()
    assert report.complete
    mount.wait_until_idle()
    needed = TENSORS * MIB // 4
    assert needed <= mount.counters().bytes_served <= needed + 28 * 64 * KIB


@pytest.mark.parametrize("workers", WORKERS)
def test_rows_that_are_looked_at_all_the_same_are_right(
    numbered: Path, make_mount: MakeMount, workers: int | None
) -> None:
    with iterate(make_mount(numbered).mountpoint, second_quarter, workers) as weights:
        names = []
        for name, tensor in weights:
            names.append(name)
            assert bool((tensor == value_of(name)).all())
    assert len(names) == TENSORS


def test_tensors_without_rows_or_bytes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensors = {"a": torch.zeros(0, 4), "b": torch.tensor(7.0), "c": torch.ones(4, 4)}
    pytest.importorskip("safetensors.torch").save_file(tensors, tmp_path / "m.safetensors")
    for rows in (none, lambda _name, _shape: (0, 1), lambda _name, _shape: None):
        with iterate(tmp_path, rows) as weights:
            found = {name: (tuple(tensor.shape), float(tensor.sum())) for name, tensor in weights}
        assert found == {"a": ((0, 4), 0.0), "b": ((), 7.0), "c": ((4, 4), 16.0)}


@pytest.mark.parametrize("workers", WORKERS)
def test_what_is_looked_at_all_the_same_is_right(
    numbered: Path, make_mount: MakeMount, workers: int | None
) -> None:
    mount = make_mount(numbered)
    with iterate(mount.mountpoint, none, workers) as weights:
        found = {name: bool((tensor == value_of(name)).all()) for name, tensor in weights}
        assert weights.prefetch is not None
        assert weights.prefetch.report().planned_bytes < 64 * KIB
    assert len(found) == TENSORS
    assert all(found.values())


@pytest.mark.parametrize("mode", ["mmap", "pread"])
def test_mode_pread_reads_everything(numbered: Path, make_mount: MakeMount, mode: Mode) -> None:
    mount = make_mount(numbered)
    with iterate(mount.mountpoint, all_but_skipped, mode=mode) as weights:
        for name, tensor in weights:
            if mode == "pread":
                assert bool((tensor == value_of(name)).all())
    mount.wait_until_idle()
    assert (mount.counters().bytes_served >= TENSORS * MIB) is (mode == "pread")


def test_a_profile_knows_better(numbered: Path, make_mount: MakeMount, tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    mount = make_mount(numbered)
    learn = str(tmp_path / "profiles")

    def load() -> tuple[str | None, int]:
        """By a consumer that looks at the first shard only, of which most was called unneeded."""
        mount.evict_all()
        mount.reset()
        with iterate(mount.mountpoint, all_but_skipped, learn=learn, learn_key="k") as weights:
            for name, tensor in weights:
                if name.startswith("0."):
                    assert bool((tensor == value_of(name)).all())
                del tensor
            assert weights.prefetch is not None
            learned = weights.prefetch.report().learned
            planned_bytes = weights.prefetch.report().planned_bytes
        return learned, planned_bytes

    learned, planned_bytes = load()
    assert learned == "recorded"
    assert planned_bytes >= (TENSORS - len(SKIPPED)) * MIB
    eventually(lambda: list(Path(learn).iterdir()), "no profile is written")
    learned, planned_bytes = load()
    assert learned == "used"
    assert 8 * MIB <= planned_bytes <= 9 * MIB
