"""Several local ranks of `warm --keep` and `--follow`: who says what, and what each locks."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import stay_support
from conftest import clean_environment, finish, make_cold, start_python, write_file
from stay_support import OFTEN, SIZE_BYTES, SOON, metrics, require_lockable, staying
from terminal_support import COMMAND

folder = stay_support.folder


def rank(number: int) -> list[object]:
    return ["--local-rank", number, "--local-size", 2]


@pytest.mark.parametrize("number", [0, 1])
def test_one_rank_says_what_is_of_the_node(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "model"
    names = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2)]
    make_cold(write_file(folder / names[0], SIZE_BYTES))
    with staying("--follow", *SOON, *rank(number), folder) as follower:
        follower.until_it_stays()
        later = write_file(tmp_path / names[1], SIZE_BYTES)
        make_cold(later)
        later.rename(folder / names[1])
        (figures,) = follower.file.parent.glob("*.prom")
        follower.until(
            lambda: metrics(figures)["shardahead_follow_rounds_total"], "it does not come"
        )
        done = follower.end()
    assert done.returncode == 1
    assert "incomplete: " in done.stderr
    if number == 0:
        assert "waiting for the rest: " in done.stderr
        assert "1 shard more: 2.00 MiB read; 1 missing (2 local ranks)\n" in done.stderr
        first, last = done.stdout.splitlines()
        assert first.endswith("(2 local ranks)")
        assert last.endswith("2.00 MiB read after the first time (local rank 0 of 2)")
    else:
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""


def test_one_rank_says_that_memory_is_short(folder: Path) -> None:
    env = {**clean_environment(), "SHARDAHEAD_MEMORY_BUDGET_BYTES": "64KiB"}
    words = ["--keep", "--block-size", "64KiB", *OFTEN, *rank(1)]
    with staying(*words, folder, env=env) as keeper:
        keeper.until_it_stays()
        (figures,) = keeper.file.parent.glob("*.prom")
        keeper.until(lambda: metrics(figures)["shardahead_keep_backed_off"], "it does not back off")
        done = keeper.end()
    assert done.returncode == 1
    assert "memory is short" not in done.stderr
    assert "are not resident" in done.stderr


LOCKS_NOTHING = f"""
import errno
from shardahead.command.kept_shards import KeptShards
def refused(*_):
    print("refused", flush=True)
    raise OSError(errno.ENOMEM, "Cannot allocate memory", "a-2")
KeptShards._lock_file = refused
{COMMAND}
"""


def test_a_rank_that_cannot_lock_its_share_says_so(folder: Path) -> None:
    require_lockable()
    words = ["--keep", "--lock", *map(str, rank(1))]
    process = start_python(LOCKS_NOTHING, "warm", *words, folder)
    assert process.stdout is not None
    assert process.stdout.readline() == "refused\n"
    process.send_signal(signal.SIGTERM)
    done = finish(process)
    assert done.returncode == 1
    assert "not all is locked: open 'a-2': Cannot allocate memory" in done.stderr


def test_local_ranks_lock_a_share_each(folder: Path) -> None:
    require_lockable()
    with staying("--keep", "--lock", "--json", *rank(1), *OFTEN, folder) as keeper:
        keeper.until_it_stays()
        keeper.until(lambda: keeper.locked_bytes() >= SIZE_BYTES, "it locks nothing")
        assert keeper.locked_bytes() < 2 * SIZE_BYTES
        assert keeper.document()["keep"]["locked_bytes"] == SIZE_BYTES
