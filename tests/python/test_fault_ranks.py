"""Ranks that are killed at any time, and as many processes on one board as a node may have."""

from __future__ import annotations

import os
import random
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG_SECONDS, KIB, MIB, MakeMount, eventually, refaulted_bytes, write_file
from fault_support import CHECKED, ITERATORS, write_checkpoint
from nursery import Nursery

SOAK_ROUNDS = int(os.environ.get("SOAK_ROUNDS", "100"))
RANKS = 4
PROCESSES = 200
#: Of the checkpoint, beyond which bytes were moved again because of a death.
MOST_SERVED = 1.02
#: A board of a checkpoint of a few blocks.
MOST_LEFT_BYTES = 20 * KIB

RANK = (
    CHECKED
    + f"""
found = []
for name, tensor in shardahead.{ITERATORS[0]}(sys.argv[1], block_size=1024 * 1024):
    assert right(name, tensor), name
    found.append(name)
print(json.dumps(found))
"""
)
LIGHT = """
print("begun", flush=True)
while not os.path.exists(sys.argv[2]):
    time.sleep(0.01)
handle = shardahead.prefetch_files(sys.argv[1], threads=1, block_size=65536)
handle.wait()
report = handle.report()
print(json.dumps([report.partition, report.complete, report.read_bytes, report.shared_bytes
                  + report.resident_bytes + report.read_bytes]), flush=True)
del handle, report
os._exit(0)  # 200 times the end of an interpreter with torch would take most of the test
"""


def has_served(mount: Any, count: float) -> bool:
    return bool(mount.counters().bytes_served >= count)


def kill_one_of_them(
    nursery: Nursery, tmp_path: Path, make_mount: MakeMount, rounds: int, seed: int
) -> dict[str, float]:
    """Figures of `rounds` loads, in each of which one rank is killed at a time of its own.

    That time is when a random part of the bytes has been served.
    """
    source = write_checkpoint(tmp_path / "source", shards=4, tensors=8)
    mount = make_mount(source, rate_mb_per_s=100, round_trip_ms=1)
    total = sum(path.stat().st_size for path in source.iterdir())
    draw = random.Random(seed)
    most, killed_in_time = 0.0, 0
    names = [f"{i}.{j}" for i in range(4) for j in range(8)]
    for _ in range(rounds):
        mount.evict_all()
        mount.reset()
        refaulted = refaulted_bytes()
        ranks = [nursery.start(RANK, mount.mountpoint) for _ in range(RANKS)]
        kill_at_bytes = draw.uniform(0, 0.95) * total
        eventually(partial(has_served, mount, kill_at_bytes), "the load does not go on")
        victim = ranks.pop(draw.randrange(RANKS))
        victim.kill()
        killed_in_time += victim.status() < 0
        for rank in ranks:
            assert rank.result() == names, f"seed {seed}"
        mount.wait_until_idle()
        again = refaulted_bytes() - refaulted  # evicted by the kernel meanwhile, and read again
        most = max(most, (mount.counters().bytes_served - again) / total)
        assert most <= MOST_SERVED, f"seed {seed}"
    return {"rounds": rounds, "killed": killed_in_time, "most_served": round(most, 4)}


def test_the_survivors_of_a_killed_rank_load_all_of_it_and_once(
    nursery: Nursery, tmp_path: Path, make_mount: MakeMount
) -> None:
    kill_one_of_them(nursery, tmp_path, make_mount, rounds=4, seed=1)


@pytest.mark.soak
def test_the_survivors_of_many_killed_ranks(
    nursery: Nursery, tmp_path: Path, make_mount: MakeMount
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(kill_one_of_them(nursery, tmp_path, make_mount, SOAK_ROUNDS, seed))


def test_two_hundred_processes_on_one_board_read_each_byte_once(
    nursery: Nursery, tmp_path: Path, make_mount: MakeMount
) -> None:
    for i in range(8):
        write_file(tmp_path / "source" / f"{i}.bin", 4 * MIB)
    mount = make_mount(tmp_path / "source", rate_mb_per_s=100)
    total = 32 * MIB
    go, board = tmp_path / "go", tmp_path / "board"
    board.mkdir()
    env = {"SHARDAHEAD_BOARD_FOLDER": str(board)}
    refaulted = refaulted_bytes()
    children = [nursery.start(LIGHT, mount.mountpoint, go, env=env) for _ in range(PROCESSES)]
    for child in children:
        child.wait_until_says("begun")
    go.touch()
    found = [child.result() for child in children]
    assert [f for f in found if f[:2] != ["dynamic", True] or f[3] != total] == []
    again = refaulted_bytes() - refaulted
    assert mount.counters().bytes_served - again <= total + 64 * KIB
    # They end without leaving in order, so the board may stay; who comes next takes it away.
    for _ in range(3):
        next_one = nursery.start(LIGHT.replace("os._exit(0)", ""), mount.mountpoint, go, env=env)
        next_one.wait_until_says("begun")
        assert next_one.result()[1]
    assert os.listdir(board) == []


def test_what_a_killed_group_leaves_the_next_load_of_anything_takes_away(
    nursery: Nursery, tmp_path: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(write_checkpoint(tmp_path / "source"))
    mount.stall("model-2.safetensors", 0, HANG_SECONDS)
    board = tmp_path / "board"
    board.mkdir()
    env = {"SHARDAHEAD_BOARD_FOLDER": str(board)}
    ranks = [nursery.start(RANK, mount.mountpoint, env=env) for _ in range(RANKS)]
    eventually(lambda: mount.counters().in_flight, "nothing is stalled")
    for rank in ranks:
        rank.kill()
        assert rank.status() == -signal.SIGKILL
    (left,) = board.iterdir()
    assert left.stat().st_size <= MOST_LEFT_BYTES
    write_file(tmp_path / "other" / "0.bin", 4 * MIB)
    go = tmp_path / "go"
    go.touch()
    alive = nursery.start(LIGHT.replace("os._exit(0)", ""), tmp_path / "other", go, env=env)
    assert alive.result()[:2] == ["dynamic", True]
    assert os.listdir(board) == []
