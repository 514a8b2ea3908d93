"""The memory budget, and where a prefetch ends because of it, in a real cgroup where one can be.

The parsers and sums are tested in C++ (memory_budget_test.cpp).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import check_sum, make_cold, write_file

import shardahead
from shardahead import MemoryBudget, memory, memory_budget, prefetch_files
from shardahead.memory import window_for, window_in_force
from shardahead.shards import resolve_shards

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "compare"))
from cgroup import memory_group, within

MIB = 1024**2


@pytest.mark.parametrize(
    ("wanted", "budget", "consumer", "window"),
    [
        (100, None, False, 0),
        (100, 100, False, 0),
        (101, 100, False, 100),
        (101, 100, True, 50),
        (101, 0, False, 1),
        (101, 1, True, 1),
        (0, 0, False, 0),
    ],
)
def test_a_window_only_where_not_all_that_is_wanted_fits(
    wanted: int, budget: int | None, consumer: bool, window: int
) -> None:
    assert window_for(wanted, budget, consumer=consumer) == window


def test_the_budget_of_this_machine_says_where_it_comes_from() -> None:
    budget = memory_budget()
    assert budget.budget_bytes is not None
    assert budget.tightest is not None
    assert budget.tightest in budget.limits
    assert budget.budget_bytes + budget.reserve_bytes == budget.tightest.free_bytes
    assert budget.tightest.free_bytes == min(limit.free_bytes for limit in budget.limits)
    assert budget.tightest.source in budget.text()
    assert "/proc/meminfo" in [limit.source for limit in budget.limits]


def has_budget(monkeypatch: pytest.MonkeyPatch, budget_bytes: int | None) -> None:
    budget = MemoryBudget(budget_bytes, 0, None, ())
    monkeypatch.setattr(memory, "memory_budget", lambda: budget)


def test_without_a_consumer_it_fills_the_budget_and_says_what_was_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(tmp_path / "a", 16 * MIB)
    make_cold(path)
    has_budget(monkeypatch, 4 * MIB)
    handle = prefetch_files(path, block_size=MIB)
    handle.wait()
    report = handle.report()
    check_sum(report)
    assert (report.window_bytes, report.window_source) == (4 * MIB, "memory")
    assert (report.read_bytes, report.left_out_bytes) == (4 * MIB, 12 * MIB)
    reason = "12.0 MiB left out, beyond the 4.00 MiB that fit in memory"
    assert report.incomplete_reason() == reason


@pytest.mark.parametrize(("given", "source"), [(0, "none"), (6 * MIB, "given")])
def test_a_window_that_was_given_goes_before_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: int, source: str
) -> None:
    path = write_file(tmp_path / "a", 8 * MIB)
    has_budget(monkeypatch, MIB)
    handle = prefetch_files(path, block_size=MIB, window_bytes=given)
    handle.wait()
    report = handle.report()
    assert (report.window_bytes, report.window_source) == (given, source)
    assert report.left_out_bytes == (2 * MIB if given else 0)


def test_only_what_is_wanted_has_to_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(tmp_path / "a", 8 * MIB)
    shards = resolve_shards(path)
    has_budget(monkeypatch, MIB)
    assert window_in_force(None, shards, [None], consumer=False).window_bytes == MIB
    assert window_in_force(None, shards, [[(0, MIB)]], consumer=False).window_bytes == 0


@pytest.fixture
def group() -> Iterator[str]:
    """A memory cgroup with a limit of 256 MiB."""
    with ExitStack() as stack:
        try:
            made = stack.enter_context(memory_group(256))
        except OSError as error:
            pytest.skip(str(error))
        yield made


def run_in(group: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(within(group, command), capture_output=True, text=True, timeout=120)


WARM = (sys.executable, "-m", "shardahead", "warm", "--json")


def test_in_a_cgroup_half_the_size_warm_keeps_what_it_brought_in(
    group: str, tmp_path: Path
) -> None:
    files = [write_file(tmp_path / f"{i}.safetensors", 64 * MIB) for i in range(8)]
    for file in files:
        make_cold(file)
    for _ in range(2):  # the second is the warm restart, which must not be refused
        done = run_in(group, *WARM, *map(os.fspath, files))
        report = json.loads(done.stdout)
        assert done.returncode == 1
        assert report["window_source"] == "memory"
        assert 32 * MIB < report["window_bytes"] < 256 * MIB
        assert report["left_out_bytes"] > 0
        assert "--force reads on" in report["reason"]
        resident = sum(file.resident_bytes or 0 for file in shardahead.residency(files))
        assert resident > 0.9 * report["window_bytes"]


def test_force_goes_beyond_the_budget(group: str, tmp_path: Path) -> None:
    files = [write_file(tmp_path / f"{i}.safetensors", 64 * MIB) for i in range(5)]
    for file in files:
        make_cold(file)
    report = json.loads(run_in(group, *WARM, "--force", *map(os.fspath, files)).stdout)
    assert (report["window_bytes"], report["left_out_bytes"]) == (0, 0)
    assert report["read_bytes"] + report["resident_bytes"] == report["planned_bytes"]
