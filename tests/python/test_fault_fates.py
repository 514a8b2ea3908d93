"""What may become of one of several ranks in the middle of a load, while the others need what it
has: killed, stopped for a while or for good, killed with a forked child that lives on, a storage
that stalls. Judged by the bytes that arrive and are served, and by who comes to the end; by no
clock.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG_SECONDS, MakeMount, eventually, refaulted_bytes, resident_bytes
from fault_support import CHECKED, ITERATORS, write_checkpoint
from nursery import Child, Nursery

SOAK_ROUNDS = int(os.environ.get("SOAK_ROUNDS", "100"))
SHARDS, TENSORS = 4, 8
NAMES = [f"{i}.{j}" for i in range(SHARDS) for j in range(TENSORS)]
#: Of the checkpoint, beyond which bytes were moved again because of what became of a rank.
MOST_SERVED = 1.02
# The kernel asks again page by page for what a failed request was to bring.
STALL_SECONDS = (0.05, 0.3)

#: Its second argument says after how many tensors it forks a child, which lives until the file of
#: the third is there.
RANK = (
    CHECKED
    + f"""
found = []
for name, tensor in shardahead.{ITERATORS[0]}(sys.argv[1], block_size=1024 * 1024):
    assert right(name, tensor), name
    found.append(name)
    if len(found) == int(sys.argv[2]):
        if os.fork() == 0:
            signal.alarm(300)
            while not os.path.exists(sys.argv[3]):
                time.sleep(0.02)
            os._exit(0)
        print("forked", flush=True)
print(json.dumps(found))
"""
)


@dataclass
class Load:
    """One load of all ranks, of which the first is the one that something happens to."""

    draw: random.Random
    mount: Any
    ranks: list[Child]
    total_bytes: int

    @property
    def victim(self) -> Child:
        return self.ranks[0]

    def some_time(self) -> None:
        """Until a random part of the bytes has been served."""
        count = self.draw.uniform(0, 0.95) * self.total_bytes
        served = 0
        while served < count:
            eventually(
                partial(self._has_served, served + 1),
                f"the load does not go on: {served} of {self.total_bytes} bytes are served",
                seconds=HANG_SECONDS,
            )
            served = self.mount.counters().bytes_served

    def _has_served(self, count: int) -> bool:
        return bool(self.mount.counters().bytes_served >= count)

    def stop(self) -> None:
        """SIGSTOP; when this returns none of its threads runs, if it has not ended by then."""
        self.some_time()
        self.victim.kill(signal.SIGSTOP)
        eventually(lambda: self.victim.ended or is_stopped(self.victim), "it does not stop")

    def others_are_right(self) -> None:
        for rank in self.ranks[1:]:
            assert rank.result() == NAMES

    def all_are_right(self) -> None:
        for rank in self.ranks:
            assert rank.result() == NAMES


def is_stopped(child: Child) -> bool:
    try:
        status = Path(f"/proc/{child.pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] == "T"


def is_evicted(mount: Any) -> bool:
    mount.evict_all()
    return not sum(map(resident_bytes, sorted(mount.mountpoint.glob("*.safetensors"))))


def killed(load: Load) -> None:
    load.some_time()
    load.victim.kill()
    load.others_are_right()


def stopped_for_a_while(load: Load) -> None:
    load.stop()
    # Until the others are through some more of it, or have nothing more to fetch.
    load.some_time()
    load.victim.kill(signal.SIGCONT)
    load.all_are_right()


def stopped_until_the_others_are_done(load: Load) -> None:
    load.stop()
    load.others_are_right()
    assert load.victim.ended or is_stopped(load.victim)
    load.victim.kill(signal.SIGCONT)
    load.all_are_right()


def stopped_for_good(load: Load) -> None:
    load.stop()
    load.others_are_right()
    assert load.victim.ended or is_stopped(load.victim)
    load.victim.kill()


def killed_with_a_child_that_lives(load: Load) -> None:
    load.victim.wait_until_says("forked")
    load.victim.kill()
    load.others_are_right()


def forking(load: Load) -> None:
    load.all_are_right()


def stalled(load: Load) -> None:
    load.some_time()
    name = f"model-{load.draw.randrange(SHARDS)}.safetensors"
    size = (load.mount.mountpoint / name).stat().st_size
    load.mount.stall(name, load.draw.randrange(size), load.draw.uniform(*STALL_SECONDS))
    load.all_are_right()


FATES = [
    killed,
    stopped_for_a_while,
    stopped_until_the_others_are_done,
    stopped_for_good,
    killed_with_a_child_that_lives,
    forking,
    stalled,
]


def run_rounds(
    nursery: Nursery, tmp_path: Path, make_mount: MakeMount, rounds: int, ranks: int, seed: int
) -> dict[str, Any]:
    """Figures of `rounds` loads by `ranks` processes, each fate in turn."""
    source = write_checkpoint(tmp_path / "source", shards=SHARDS, tensors=TENSORS)
    mount = make_mount(source, rate_mb_per_s=100, round_trip_ms=1)
    total = sum(path.stat().st_size for path in source.iterdir())
    draw = random.Random(seed)
    most, count = 0.0, Counter[str]()
    for number in range(rounds):
        fate = FATES[number % len(FATES)]
        what = f"seed {seed}, round {number}, {fate.__name__}"
        mount.clear()
        # Whoever was killed, and a child that was let live, may still be about to end.
        eventually(partial(is_evicted, mount), f"{what}: pages are left")
        mount.reset()
        refaulted = refaulted_bytes()
        end_of_children = tmp_path / f"end-{number}"
        forks = fate in (killed_with_a_child_that_lives, forking)
        fork_at = draw.randint(1, len(NAMES) - 1) if forks else 0
        start = partial(nursery.start, RANK, mount.mountpoint)
        members = [start(fork_at if i == 0 else 0, end_of_children) for i in range(ranks)]
        try:
            fate(Load(draw, mount, members, total))
        except BaseException as error:
            raise AssertionError(f"{what}: {error}") from error
        finally:
            end_of_children.touch()
        count[fate.__name__] += 1
        mount.wait_until_idle()
        again = refaulted_bytes() - refaulted  # evicted by the kernel meanwhile, and read again
        served = (mount.counters().bytes_served - again) / total
        most = max(most, served)
        assert served <= MOST_SERVED, what
    return {"rounds": rounds, "ranks": rounds * ranks, "most_served": round(most, 4), **count}


def test_whatever_becomes_of_one_rank_the_others_load_all_of_it_and_once(
    nursery: Nursery, tmp_path: Path, make_mount: MakeMount
) -> None:
    run_rounds(nursery, tmp_path, make_mount, rounds=len(FATES), ranks=3, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("fate", FATES)
def test_eight_ranks_and_what_becomes_of_one_again_and_again(
    nursery: Nursery,
    tmp_path: Path,
    make_mount: MakeMount,
    monkeypatch: pytest.MonkeyPatch,
    fate: Any,
) -> None:
    monkeypatch.setattr(f"{__name__}.FATES", [fate])
    seed = random.SystemRandom().randrange(2**32)
    print(run_rounds(nursery, tmp_path, make_mount, SOAK_ROUNDS, 8, seed))
