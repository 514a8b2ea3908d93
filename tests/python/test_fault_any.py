"""Faults drawn at random, several at once, under several ranks: right bytes or a true error.

What a round draws follows from its seed, when it happens does not.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, PAGE_BYTES, MakeMount
from fault_support import CHECKED, LOADS, names_before, write_checkpoint
from nursery import Nursery

SOAK_ROUNDS = int(os.environ.get("SOAK_ROUNDS", "100"))
SHARDS = 3
# The kernel asks again page by page for what a failed request was to bring, and each page waits:
# the 256 of a readahead of 1 MiB take 77 s at most.
STALL_SECONDS = (0.05, 0.3)

LOAD = (
    CHECKED
    + """
make, folder, options = sys.argv[1:]
found, error = [], None
try:
    for name, tensor in getattr(shardahead, make)(folder, **json.loads(options)):
        assert right(name, tensor), name
        found.append(name)
except OSError as caught:
    error = [caught.errno, caught.filename, str(caught)]
print(json.dumps([found, error]))
"""
)


def draw_faults(draw: random.Random, mount: Any, size_bytes: int) -> set[str]:
    """Sets up to three faults; the files of which some byte cannot be read."""
    bad = set()
    for _ in range(draw.randrange(4)):
        name = f"model-{draw.randrange(SHARDS)}.safetensors"
        offset = draw.randrange(size_bytes)
        kind = draw.choice(["page", "rest", "stall"])
        if kind == "page":
            mount.bad(name, offset, PAGE_BYTES)
        elif kind == "rest":
            mount.eio(name, offset)
        else:
            mount.stall(name, offset, draw.uniform(*STALL_SECONDS))
        if kind != "stall":
            bad.add(name)
    return bad


def run_round(draw: random.Random, nursery: Nursery, mount: Any) -> dict[str, int]:
    mount.clear()
    mount.evict_all()
    size_bytes = (mount.mountpoint / "model-0.safetensors").stat().st_size
    bad = draw_faults(draw, mount, size_bytes)
    ranks = [nursery.start(LOAD, *way(draw, mount)) for _ in range(draw.randint(1, 4))]
    time.sleep(draw.uniform(0, 0.3))
    killed = draw.random() < 0.3
    if killed:
        ranks.pop(draw.randrange(len(ranks))).kill()
    # The last to be asked for its result: the others come to theirs while it stands still.
    stopped = len(ranks) > 1 and draw.random() < 0.3
    if stopped:
        ranks[-1].kill(signal.SIGSTOP)
    if draw.random() < 0.2:
        mount.clear()  # what has failed by then need not have failed for all
    errors = 0
    for rank in ranks:
        if stopped and rank is ranks[-1]:
            rank.kill(signal.SIGCONT)
        found, error = rank.result()
        assert found == names_before(SHARDS)[: len(found)]
        assert (error is None) == (found == names_before(SHARDS)), (found, error)
        if error is not None:
            errors += 1
            assert error[0] == errno.EIO
            assert Path(error[1]).name in bad
    count = {"ranks": len(ranks), "killed": int(killed), "stopped": int(stopped)}
    return {**count, "errors": errors, "bad files": len(bad)}


def way(draw: random.Random, mount: Any) -> tuple[str, Path, str]:
    make, options = draw.choice(LOADS)
    return make, mount.mountpoint, options


def run_rounds(
    nursery: Nursery, tmp_path: Path, make_mount: MakeMount, rounds: int, seed: int
) -> dict[str, int]:
    source = write_checkpoint(tmp_path / "source", shards=SHARDS)
    readahead_kib = 1024 if os.geteuid() == 0 else 128
    mount = make_mount(source, rate_mb_per_s=200, readahead_kib=readahead_kib)
    assert sum(path.stat().st_size for path in source.iterdir()) > 12 * MIB
    draw = random.Random(seed)
    total: dict[str, int] = {"rounds": rounds}
    for number in range(rounds):
        try:
            for name, count in run_round(draw, nursery, mount).items():
                total[name] = total.get(name, 0) + count
        except BaseException as error:
            raise AssertionError(f"seed {seed}, round {number}: {error}") from error
    return total


def test_any_faults_give_right_bytes_or_a_true_error(
    nursery: Nursery, tmp_path: Path, make_mount: MakeMount
) -> None:
    run_rounds(nursery, tmp_path, make_mount, rounds=8, seed=1)


@pytest.mark.soak
def test_any_faults_again_and_again(
    nursery: Nursery, tmp_path: Path, make_mount: MakeMount
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(run_rounds(nursery, tmp_path, make_mount, SOAK_ROUNDS, seed))
