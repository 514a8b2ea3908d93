"""The options that every weight iterator has, in real loads: the report and the kernel say that
they are in force, and the tensors are the same bit for bit.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import KIB, MIB, eventually, make_cold, resident_bytes, worker_threads
from weights_support import Bits, bits, buffered, one_by_one, plainly, save_file, zoo

from shardahead import LoadProgress, Options, Report, WeightsIterator, pt_weights_iterator

torch = pytest.importorskip("torch")

Iterate = Callable[..., WeightsIterator]
FORMATS: dict[str, tuple[Iterate, str]] = {
    "one by one": (one_by_one, "safetensors"),
    "buffered": (buffered, "safetensors"),
    "pt": (pt_weights_iterator, "bin"),
}


class Load:
    """A checkpoint of three shards, and how it is loaded."""

    def __init__(self, folder: Path, iterate: Iterate, suffix: str) -> None:
        self.iterate = iterate
        self.paths = [folder / f"model-{number}.{suffix}" for number in range(3)]
        self.expected: list[Bits] = []
        for number, path in enumerate(self.paths):
            if suffix == "safetensors":
                save_file(zoo(number), path)
                self.expected += plainly(path)
            else:
                torch.save(zoo(number), path)
                self.expected += [bits(*item) for item in zoo(number).items()]
        make_cold(*self.paths)

    def all(self, **options: Any) -> tuple[list[Bits], Report]:
        """What a whole load gives, and its report. No tensor is held."""
        weights = self.iterate(self.paths, **options)
        found = []
        for name, tensor in weights:
            found.append(bits(name, tensor))
            del tensor
        assert weights.prefetch is not None
        eventually(lambda: weights.prefetch is None or weights.prefetch.done, "it does not end")
        return found, weights.prefetch.report()

    def resident_bytes(self) -> list[int]:
        return [resident_bytes(path) for path in self.paths]


@pytest.fixture(params=FORMATS.values(), ids=list(FORMATS))
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Load:
    return Load(tmp_path, *request.param)


@pytest.fixture(params=["keywords", "options"])
def ways(request: pytest.FixtureRequest) -> Callable[..., dict[str, Any]]:
    """The same options as keywords, and as `options=`."""
    return lambda **given: given if request.param == "keywords" else {"options": Options(**given)}


@pytest.mark.parametrize("strategy", ["pread", "fadvise"])
def test_strategy(load: Load, ways: Callable[..., dict[str, Any]], strategy: str) -> None:
    found, report = load.all(**ways(strategy=strategy))
    assert found == load.expected
    assert (report.strategy, report.strategy_used) == (strategy, strategy)
    assert report.complete


@pytest.mark.parametrize("partition", ["block", "file"])
def test_partition(load: Load, ways: Callable[..., dict[str, Any]], partition: str) -> None:
    """Of two ranks the second alone: what is the other's share, it reads when it comes to it."""
    options = ways(partition=partition, block_size="256KiB")
    found, report = load.all(local_rank=1, local_size=2, **options)
    assert found == load.expected
    assert (report.partition, report.partition_reason) == (partition, "")
    assert 0 < report.planned_bytes < sum(path.stat().st_size for path in load.paths)


def test_inflight_bytes(load: Load, ways: Callable[..., dict[str, Any]]) -> None:
    found, report = load.all(**ways(inflight_bytes="512KiB", block_size=128 * KIB))
    assert found == load.expected
    assert report.inflight_bytes == 512 * KIB


@pytest.mark.parametrize("mode", ["auto", "mmap", "pread"])
@pytest.mark.parametrize("options", [{}, {"strategy": "pread", "inflight_bytes": MIB}])
def test_the_same_tensors_in_every_mode(load: Load, mode: str, options: dict[str, Any]) -> None:
    weights = load.iterate(load.paths, mode=mode, block_size="64KiB", **options)
    assert [bits(name, tensor) for name, tensor in weights] == load.expected


@pytest.mark.parametrize("mode", ["mmap", "pread"])
def test_drop_after_leaves_nothing_resident(load: Load, mode: str) -> None:
    for _, tensor in load.iterate(load.paths, mode=mode, drop_after=True):
        del tensor
    assert load.resident_bytes() == [0] * len(load.paths)


def test_without_it_all_stays(load: Load) -> None:
    load.all()
    assert load.resident_bytes() == [path.stat().st_size for path in load.paths]


def test_drop_after_waits_for_the_last_of_several_ranks(load: Load) -> None:
    ranks = [
        load.iterate(load.paths, drop_after=True, local_rank=rank, local_size=2)
        for rank in range(2)
    ]
    for number, weights in enumerate(ranks):
        for _, tensor in weights:
            del tensor
        assert any(load.resident_bytes()) == (number == 0)


@pytest.mark.parametrize("wrong", [{"partition": "block"}, {"prefetch": False}])
def test_drop_after_needs_ranks_that_know_of_each_other(load: Load, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="drop_after=True with local_size 2"):
        load.iterate(load.paths, drop_after=True, local_rank=0, local_size=2, **wrong)
    assert not worker_threads()


@pytest.mark.parametrize("mode", ["mmap", "pread"])
def test_progress_is_told_after_each_tensor(load: Load, mode: str) -> None:
    told: list[LoadProgress] = []
    for number, (name, _) in enumerate(load.iterate(load.paths, mode=mode, progress=told.append)):
        assert len(told) == number
        assert name == load.expected[number][0]
    assert [step.name for step in told] == [entry[0] for entry in load.expected]
    consumed = [step.consumed_bytes for step in told]
    assert consumed == sorted(consumed)
    (total,) = {step.total_bytes for step in told}
    assert consumed[-1] == total > 0


def test_progress_is_looked_at_before_anything_is_read(load: Load) -> None:
    with pytest.raises(TypeError, match="progress must be callable, not int"):
        load.iterate(load.paths, progress=3)
    assert not worker_threads()


def test_progress_of_pt_files_is_in_bytes_of_files(tmp_path: Path) -> None:
    load = Load(tmp_path, *FORMATS["pt"])
    sizes = [path.stat().st_size for path in load.paths]
    told: list[LoadProgress] = []

    def is_wide(name: str) -> bool:
        return "wide" in name

    for _ in load.iterate(load.paths, progress=told.append, names=is_wide):
        pass
    assert [step.consumed_bytes for step in told] == [sum(sizes[: i + 1]) for i in range(3)]
    assert {step.total_bytes for step in told} == {sum(sizes)}
    told.clear()
    torch.save({"empty": torch.empty(0), "none": torch.empty(0, 3)}, tmp_path / "empty.pt")
    for _ in pt_weights_iterator(tmp_path / "empty.pt", progress=told.append):
        pass
    assert [step.consumed_bytes == step.total_bytes > 0 for step in told] == [True, True]


def test_the_window_that_memory_leaves_is_as_documented(load: Load) -> None:
    """What torch has mapped cannot be dropped, so its files come in a smaller window."""
    share = 16 if load.iterate is pt_weights_iterator else 4
    options = Options(memory_budget_bytes=4 * MIB)
    found, report = load.all(options=options, block_size="64KiB")
    assert found == load.expected
    assert (report.window_bytes, report.window_source) == (4 * MIB // share, "memory")
    fraction = {4: "a quarter of it", 16: "a sixteenth of it"}[share]
    assert fraction in inspect.getdoc(FORMATS["pt" if share == 16 else "one by one"][0])  # type: ignore[operator]
