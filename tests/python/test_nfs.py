"""The cells of benchmarks/nfs: what is judged, and the table. The loads are `make nfs`."""

from __future__ import annotations

import sys
from dataclasses import replace

from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks" / "nfs"))
from cells import (
    CONDITIONS,
    MOUNTS,
    Load,
    Setting,
    slow_cells,
    table,
    wrong_bytes,
)

FILE_BYTES = 1_000_000_000
SETTING = Setting(FILE_BYTES, rate_mb_per_s=200, ranks=2)
LOAD = Load(MOUNTS[0], CONDITIONS[0], "shardahead", seconds=5.0, wire_bytes=FILE_BYTES)


def test_every_combination_is_a_cell() -> None:
    assert len({(mount, conditions) for mount in MOUNTS for conditions in CONDITIONS}) == 32


def test_the_share_of_the_link() -> None:
    assert SETTING.share_of_link(5.0) == 1.0
    assert SETTING.share_of_link(10.0) == 0.5


def test_bytes_that_come_twice_and_loads_that_fail_are_wrong() -> None:
    assert wrong_bytes([LOAD, replace(LOAD, wire_bytes=1_009_999_999)], SETTING) == []
    (twice,) = wrong_bytes([replace(LOAD, wire_bytes=2 * FILE_BYTES)], SETTING)
    assert "2.000 times the bytes" in twice
    assert "version 3, rsize 256 KiB, readahead 128 KiB, 0 ms" in twice
    (failed,) = wrong_bytes([replace(LOAD, problem="not all tensors came")], SETTING)
    assert failed.endswith("not all tensors came")
    # How often the plain loop reads is not ours to judge.
    assert wrong_bytes([replace(LOAD, method="plain", wire_bytes=3 * FILE_BYTES)], SETTING) == []


def test_cells_are_judged_by_their_median() -> None:
    loads = [replace(LOAD, seconds=seconds) for seconds in (5.0, 5.1, 50.0)]
    assert slow_cells(loads, SETTING, 0.95) == []
    (slow,) = slow_cells(loads, SETTING, 0.99)
    assert slow.endswith("0.980 of the link")


def test_the_table() -> None:
    loads = [
        LOAD,
        replace(LOAD, seconds=10.0, wire_bytes=FILE_BYTES + 2_000_000),
        replace(LOAD, method="plain", seconds=50.0),
        replace(LOAD, conditions=CONDITIONS[-1]),
        replace(LOAD, mount=MOUNTS[-1], problem="it broke"),
    ]
    assert table(loads, SETTING).splitlines()[2:] == [
        "| 3 | 256 KiB | 128 KiB | 0 ms | 0.75 (0.50-1.00) | 1.002 | 0.10 |",
        "| 3 | 256 KiB | 15 MiB | 20 ms | 1.00 | 1.000 |  |",
    ]
