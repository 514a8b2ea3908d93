"""When a keeper brings back what was evicted, and when it leaves memory to others: by told figures.
And which options of warm go together.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    MIB,
    clean_environment,
    finish,
    make_cold,
    resident_bytes,
    start_python,
    write_file,
)

from shardahead import _core
from shardahead.checkpoint.shards import resolve_shards
from shardahead.command.cli import _parser
from shardahead.command.keeping import MOST_INTERVALS, Keeper
from shardahead.command.kept_shards import KeptShards, require_lockable
from shardahead.command.staying import StayFigures
from shardahead.command.warm_beside import WarmBeside

SIZE = 1000


def test_while_all_is_resident_nothing_is_done() -> None:
    keeper = Keeper(10)
    for _ in range(5):
        look = keeper.look(SIZE, 0, 0, 10 * SIZE)
        assert (look.restore, look.wait_seconds, look.say) == (False, 10, None)


@pytest.mark.parametrize("budget", [10 * SIZE, None])
def test_what_was_evicted_is_brought_back(budget: int | None) -> None:
    keeper = Keeper(10)
    look = keeper.look(SIZE, 300, 0, budget)
    assert (look.restore, look.wait_seconds, look.say) == (True, 10, None)
    assert not keeper.look(SIZE, 0, 0, budget).restore
    assert keeper.look(SIZE, 300, 0, budget).restore


def test_what_is_evicted_again_at_once_is_left_for_a_while() -> None:
    keeper = Keeper(10)
    assert keeper.look(SIZE, 300, 0, 10 * SIZE).restore
    keeper.restored(300)
    look = keeper.look(SIZE, 280, 0, 10 * SIZE)
    assert (look.restore, look.wait_seconds, keeper.backed_off) == (False, 20, True)
    assert look.say
    assert "memory is short" in look.say
    # It is tried again, after a longer and longer time, and said no more.
    waits = []
    for _ in range(20):
        tried = keeper.look(SIZE, 280, 0, 10 * SIZE)
        assert tried.restore
        again = keeper.look(SIZE, 280, 0, 10 * SIZE)
        assert (again.restore, again.say) == (False, None)
        waits.append(again.wait_seconds)
    assert waits == sorted(waits)
    assert waits[-1] == 10 * MOST_INTERVALS
    # Once all of it stays, it is as before, and would be said again.
    assert keeper.look(SIZE, 0, 0, 10 * SIZE).wait_seconds == 10
    assert not keeper.backed_off
    assert keeper.look(SIZE, 300, 0, 10 * SIZE).restore
    assert keeper.look(SIZE, 300, 0, 10 * SIZE).say


def test_what_does_not_come_is_not_asked_for_all_the_time() -> None:
    keeper = Keeper(10)
    assert keeper.look(SIZE, 300, 0, 10 * SIZE).restore
    keeper.restored(0)
    look = keeper.look(SIZE, 300, 0, 10 * SIZE)
    assert (look.restore, look.wait_seconds) == (False, 20)
    assert "does not come back" in str(look.say)


def test_a_little_less_missing_after_each_look_is_no_fight() -> None:
    keeper = Keeper(10)
    assert keeper.look(SIZE, 400, 0, 10 * SIZE).restore
    assert keeper.look(SIZE, 100, 0, 10 * SIZE).restore
    assert not keeper.backed_off


def test_what_does_not_fit_is_not_brought_back() -> None:
    keeper = Keeper(10)
    first = keeper.look(SIZE, 300, 0, SIZE - 1)
    assert (first.restore, first.wait_seconds) == (False, 20)
    assert first.say
    assert keeper.look(SIZE, 300, 0, SIZE - 1).say is None
    # What is locked is not in the way of itself.
    assert keeper.look(SIZE, 300, 1, SIZE - 1).restore


# ---- what it says at the end ----


@pytest.mark.parametrize(
    ("words", "figures", "line"),
    [
        (["--keep"], {}, "warm: kept 1.00 KiB of 1.00 KiB resident"),
        (
            ["--keep", "--lock"],
            {"locked_bytes": 1024, "restored_bytes": 512},
            "warm: kept 1.00 KiB of 1.00 KiB resident, 1.00 KiB of it locked; 512 B brought back",
        ),
        (["--keep", "--lock"], {}, "warm: kept 1.00 KiB of 1.00 KiB resident, 0 B of it locked"),
        (["--follow"], {}, "warm: followed 2 shards, 1.00 KiB"),
        (
            ["--follow"],
            {"read_bytes": 100},
            "warm: followed 2 shards, 1.00 KiB; 100 B read after the first time",
        ),
    ],
)
def test_what_did_not_happen_is_not_said(
    words: list[str], figures: dict[str, Any], line: str
) -> None:
    beside = WarmBeside(_parser().parse_args(["warm", *words, "/m"]))
    sizes: dict[str, Any] = {
        "shards": 2,
        "size_bytes": 1024,
        "kept_bytes": 1024,
        "resident_bytes": 1024,
    }
    beside._stay.figures = StayFigures(**{**sizes, **figures})
    assert beside.text() == line


# ---- options ----


def warm(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shardahead", "warm", *map(str, words)]
    started = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
        **options,
    )
    return finish(started)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--lock"], "--keep --lock"),
        (["--keep-interval", "5"], "add --keep"),
        (["--follow-interval", "5"], "add --follow"),
        (["--follow-idle", "5"], "add --follow"),
        (["--keep", "--follow", "--follow-idle", "5"], "type one of them"),
        (["--keep", "--force"], "type one of them"),
        (["--metrics-file", ""], "--metrics-file"),
        (["--rate-limit", "9999999999TB"], "must be at most 9223372036854775807"),
        (["--rate-limit", "fast"], "not a number of bytes per second: 'fast'"),
        (["--keep", "--keep-interval", "nan"], "must be from 0.1"),
        (["--keep", "--keep-interval", "soon"], "not a number of seconds"),
    ],
)
def test_options_that_do_not_go_together(words: list[str], says: str) -> None:
    """The path is not looked at."""
    done = warm(*words, "/not/there")
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""


# Root may lock what it likes, and is made to be someone who may not.
LIMITED = """
import resource, sys
from shardahead import _core
from shardahead.checkpoint.shards import resolve_shards
resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20))
_core.locks_beyond_limit = lambda: False
from shardahead.command.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_lock_beyond_the_limit_names_limit_and_need(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.safetensors", 2 * MIB)
    make_cold(path)
    done = finish(start_python(LIMITED, "warm", "--keep", "--lock", tmp_path))
    assert done.returncode == 1
    assert "--lock locks 2.00 MiB in memory" in done.stderr
    assert "RLIMIT_MEMLOCK allows this process 1.00 MiB" in done.stderr
    assert done.stdout == ""
    assert resident_bytes(path) == 0


def test_a_lock_beyond_what_fits_in_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "locks_beyond_limit", lambda: True)
    with pytest.raises(OSError, match="memory that nothing else gets back"):
        require_lockable([2**50])


def test_more_shards_than_descriptors(tmp_path: Path) -> None:
    for number in range(20):
        write_file(tmp_path / f"a-{number}.safetensors", 1)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    done = warm("--keep", tmp_path, preexec_fn=limited)
    assert done.returncode == 1
    assert "--keep keeps 20 shards open, which takes 148 descriptors" in done.stderr
    assert "allows this process 100" in done.stderr


def test_a_shard_that_could_not_be_locked_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        write_file(tmp_path / name, MIB)
    shards = resolve_shards(tmp_path)
    fails = [True]

    class Unlockable:
        size_bytes = MIB

        def __init__(self, path: bytes) -> None:
            self.path = path

        def lock(self, _offset: int, _length: int) -> None:
            if fails[0] and self.path.endswith(b"a.safetensors"):
                raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(_core, "KeptFile", Unlockable)
    monkeypatch.setattr(_core, "locks_beyond_limit", lambda: True)
    kept = KeptShards(lock=True, local_rank=0, local_size=1)
    kept.hold(shards)
    for _ in range(2):  # it is no less a problem the second time
        kept.lock_all(shards, lambda: False)
        assert kept.lock_problem
        assert kept.locked_bytes <= MIB
    fails[0] = False
    kept.lock_all(shards, lambda: False)
    assert kept.lock_problem is None
    assert kept.locked_bytes == 2 * MIB
