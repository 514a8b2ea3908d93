"""What a process has after many prefetches: descriptors, threads, boards, mappings, memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import MIB
from fault_support import ITERATORS, write_checkpoint
from nursery import Nursery

SOAK_ROUNDS = int(os.environ.get("SOAK_ROUNDS", "100"))

#: What may come on top after the warm-up, whatever the number of cycles: the allocator's arenas and
#: the interpreter's caches do not stand still.
MOST_MAPPINGS = 16
MOST_MEMORY_BYTES = 8 * MIB

SCRIPT = f"""
import gc
path, board, cycles, loads = sys.argv[1], os.environ["SHARDAHEAD_BOARD_FOLDER"], *sys.argv[2:4]

def start_and_cancel():
    handle = shardahead.prefetch_files(path)
    handle.cancel()
    weights = shardahead.{ITERATORS[0]}(path)
    weights.close()
    with shardahead.prefetching(path):
        pass

def load():
    for make, options in (
        (shardahead.{ITERATORS[0]}, {{}}),
        (shardahead.{ITERATORS[1]}, {{}}),
        (shardahead.{ITERATORS[0]}, {{"mode": "pread"}}),
    ):
        assert sum(tensor.numel() for _, tensor in make(path, **options)) > 0

def held():
    gc.collect()
    deadline = time.monotonic() + 10
    while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    status = dict(
        line.split(":", 1) for line in open("/proc/self/status").read().splitlines()
    )
    return {{
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "boards": len(os.listdir(board)),
        "mappings": len(open("/proc/self/maps").readlines()),
        "memory": int(status["RssAnon"].split()[0]) * 1024,
    }}

def grown(work, count):
    for _ in range(max(5, count // 10)):
        work()
    before = held()
    for _ in range(count):
        work()
    after = held()
    return {{name: after[name] - before[name] for name in before}}

print(json.dumps([grown(start_and_cancel, int(cycles)), grown(load, int(loads))]))
"""


def growth(nursery: Nursery, tmp_path: Path, cycles: int, loads: int) -> list[dict[str, int]]:
    folder = write_checkpoint(tmp_path / "source", tensor_bytes=64 * 1024)
    board = tmp_path / "board"
    board.mkdir()
    env = {"SHARDAHEAD_BOARD_FOLDER": str(board)}
    found: list[dict[str, int]] = nursery.start(SCRIPT, folder, cycles, loads, env=env).result()
    for grown in found:
        assert grown["descriptors"] == 0
        assert grown["threads"] == 0
        assert grown["boards"] == 0
        assert grown["mappings"] <= MOST_MAPPINGS
        assert grown["memory"] <= MOST_MEMORY_BYTES
    return found


def test_nothing_is_left_of_many_prefetches(nursery: Nursery, tmp_path: Path) -> None:
    growth(nursery, tmp_path, cycles=1000, loads=100)


@pytest.mark.soak
def test_nothing_is_left_of_very_many_prefetches(nursery: Nursery, tmp_path: Path) -> None:
    print(growth(nursery, tmp_path, cycles=20 * SOAK_ROUNDS, loads=5 * SOAK_ROUNDS))
