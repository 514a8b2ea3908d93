"""Commands that a launcher starts once for each local rank: one of the ranks shows what they found,
and each ends with its own exit status. Of `warm`: test_screens_ranks.py.
"""

from __future__ import annotations

import mmap
import os
import subprocess
from pathlib import Path

import pytest
from conftest import (
    MIB,
    STEP,
    finish,
    is_resident,
    make_cold,
    rank_variables,
    resident_bytes,
    write_file,
)
from terminal_support import COMMAND, run, start

from shardahead import Options, prefetch_files
from shardahead.command.evict_beside import Patience

RANKS = 3
LAUNCHERS = {
    "torchrun": rank_variables(RANKS),
    "slurm": [{**STEP, "SLURM_LOCALID": str(rank)} for rank in range(RANKS)],
}
PATIENTLY = "import shardahead.command.evict_beside as e; e.PATIENCE_SECONDS = {}; " + COMMAND

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Two shards that are resident, and what lies beside them."""
    folder = tmp_path / "m"
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        path = write_file(folder / name, 2 * MIB)
        make_cold(path)  # and clean
        path.read_bytes()
    (folder / "config.json").write_text("{}")
    return folder


def shards(checkpoint: Path) -> list[Path]:
    return sorted(checkpoint.glob("*.safetensors"))


def run_ranks(*words: object, launcher: str = "torchrun", script: str = COMMAND) -> list[Done]:
    """All of them at once; rank 0 is started last."""
    variables = reversed(LAUNCHERS[launcher])
    ranks = [start(*map(str, words), script=script, env=each) for each in variables]
    return [finish(rank) for rank in reversed(ranks)]


def shown_by(ranks: list[Done]) -> str:
    """What rank 0 printed; the others must have printed nothing."""
    assert [(rank.stdout, rank.stderr) for rank in ranks[1:]] == [("", "")] * (len(ranks) - 1)
    return ranks[0].stdout


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("words", ["", "--json", "-v --each"])
def test_status_is_shown_once(launcher: str, words: str, checkpoint: Path) -> None:
    ranks = run_ranks("status", checkpoint, *words.split(), launcher=launcher)
    assert [rank.returncode for rank in ranks] == [0] * RANKS
    assert shown_by(ranks) == run("status", checkpoint, *words.split()).stdout


def test_each_rank_ends_as_status_requires(checkpoint: Path) -> None:
    make_cold(shards(checkpoint)[1])
    ranks = run_ranks("status", "--require", "100%", checkpoint)
    assert [rank.returncode for rank in ranks] == [1] * RANKS
    shown_by(ranks)
    assert "incomplete: 50.0 % of 4.00 MiB is resident" in ranks[0].stderr
    ranks = run_ranks("status", "--require", "50%", checkpoint)
    assert [rank.returncode for rank in ranks] == [0] * RANKS


def test_each_rank_waits_until_enough_is_resident(checkpoint: Path) -> None:
    second = shards(checkpoint)[1]
    make_cold(second)
    words = ("status", "--watch", "0.1", "--require", "100%", str(checkpoint))
    ranks = [start(*words, env=each) for each in LAUNCHERS["torchrun"]]
    first = ranks[0].stdout
    assert first is not None
    assert "(50.0 %)" in first.readline()
    assert [rank.poll() for rank in ranks] == [None] * RANKS
    second.read_bytes()
    done = [finish(rank) for rank in ranks]
    assert [rank.returncode for rank in done] == [0] * RANKS
    assert "(100.0 %)" in shown_by(done)


def test_a_rank_that_is_interrupted_says_so_and_prints_nothing(checkpoint: Path) -> None:
    script = """
import os, signal, sys
from shardahead.command import cli, watch
def interrupted(options):
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
watch.shards_of = interrupted
watch.interruptibly = lambda work: work()
sys.exit(cli.main(sys.argv[1:]))
"""
    ranks = run_ranks("status", "--json", "--watch", checkpoint, script=script)
    assert [rank.returncode for rank in ranks] == [130] * RANKS
    assert [bool(rank.stdout) for rank in ranks] == [True, False, False]
    assert {rank.stderr for rank in ranks} == {"shardahead: incomplete: interrupted\n"}


LOOKS = f"""
import sys
import shardahead.command.evict_beside as e
e.PATIENCE_SECONDS = 3600
look = e.residency_of
def tell(path):
    if path.endswith("1-of-00002.safetensors"):
        print("looked", flush=True)
    return look(path)
e.residency_of = tell
{COMMAND}
"""


def test_evict_tells_what_was_there_although_other_ranks_came_first(checkpoint: Path) -> None:
    first, *others = LAUNCHERS["torchrun"]
    ranks = [start("evict", str(checkpoint), script=LOOKS, env=each) for each in others]
    for rank in ranks:
        assert rank.stdout is not None
        assert [rank.stdout.readline() for _ in range(2)] == ["looked\n"] * 2  # and waits
    told = run("evict", str(checkpoint), env=first)
    assert (told.returncode, told.stdout) == (0, "evict: 4.00 MiB of 4.00 MiB dropped\n")
    for done in map(finish, ranks):
        assert (done.returncode, done.stderr, {*done.stdout.split()} - {"looked"}) == (0, "", set())
    assert [resident_bytes(path) for path in shards(checkpoint)] == [0, 0]


@pytest.mark.parametrize("words", ["", "--json"])
def test_each_rank_ends_as_what_stayed_after_evict(words: str, checkpoint: Path) -> None:
    with (
        open(shards(checkpoint)[0], "rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
    ):
        assert len(bytes(mapped)) == 2 * MIB  # touched: pages that are mapped stay
        ranks = run_ranks("evict", checkpoint, *words.split(), script=PATIENTLY.format(0.2))
    assert [rank.returncode for rank in ranks] == [1] * RANKS
    assert "2.00 MiB stayed" in shown_by(ranks)
    assert "incomplete: 2.00 MiB stayed" in ranks[0].stderr
    assert resident_bytes(shards(checkpoint)[1]) == 0


def test_evict_without_rank_0(checkpoint: Path) -> None:
    variables = LAUNCHERS["torchrun"][1:]
    script = PATIENTLY.format(0.2)
    ranks = [start("evict", str(checkpoint), script=script, env=each) for each in variables]
    for done in map(finish, ranks):
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [resident_bytes(path) for path in shards(checkpoint)] == [0, 0]


def test_patience_with_what_becomes_less() -> None:
    patience = Patience(2.0)
    assert patience.holds(0.0, 10)
    assert patience.holds(1.9, 10)
    assert patience.holds(2.5, 9) is True  # it had become less since
    assert patience.holds(4.4, 9)
    assert not patience.holds(4.5, 9)
    assert not Patience(2.0).holds(0.0, 0)
    again = Patience(2.0)
    assert again.holds(0.0, 10)
    assert again.holds(1.0, 20)
    assert not again.holds(2.0, 20)


@pytest.mark.parametrize("command", ["status", "warm", "plan", "evict"])
def test_what_is_passed_over_is_said_once(command: str, checkpoint: Path) -> None:
    ranks = run_ranks(command, *sorted(checkpoint.iterdir()))
    assert [rank.returncode for rank in ranks] == [0] * RANKS
    shown_by(ranks)
    assert ranks[0].stderr.count("config.json") == 1


def test_a_path_that_is_not_there_is_an_error_of_each(tmp_path: Path) -> None:
    for command in ("status", "evict", "plan", "doctor", "bench", "report"):
        for rank in run_ranks(command, tmp_path / "missing"):
            assert (rank.returncode, rank.stdout) == (1, "")
            assert rank.stderr.count("\n") == 1


@pytest.mark.parametrize("words", ["", "--json"])
def test_a_plan_is_shown_once_and_shares_by_each(words: str, checkpoint: Path) -> None:
    ranks = run_ranks("plan", checkpoint, *words.split())
    assert [rank.returncode for rank in ranks] == [0] * RANKS
    assert shown_by(ranks)
    shares = run_ranks("plan", checkpoint, "--partition", "file", *words.split())
    assert len({rank.stdout for rank in shares}) == RANKS
    given = ("--local-rank", "1", "--local-size", "2")
    ranks = run_ranks("plan", checkpoint, *words.split(), *given)
    assert len({rank.stdout for rank in ranks}) == 1
    assert ranks[1].stdout


def test_one_rank_examines_a_mount(checkpoint: Path) -> None:
    ranks = run_ranks("doctor", "--read-bytes", "0", checkpoint)
    assert [rank.returncode for rank in ranks] == [0] * RANKS
    assert "local rank  0 of 3" in shown_by(ranks)


def test_one_rank_measures(checkpoint: Path) -> None:
    other = run("bench", checkpoint, env=LAUNCHERS["torchrun"][1])
    assert (other.returncode, other.stdout, other.stderr) == (0, "", "")
    assert all(map(is_resident, shards(checkpoint)))


def test_a_report_is_shown_once(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    prefetch_files(shards(checkpoint), options=Options(report=folder)).wait()
    while not [*folder.glob("*.json")]:
        os.sched_yield()
    ranks = run_ranks("report", folder)
    assert [rank.returncode for rank in ranks] == [0] * RANKS
    assert "prefetch_files" in shown_by(ranks)


def test_the_script_for_a_shell_is_printed_by_each() -> None:
    ranks = run_ranks("completion", "bash")
    assert len({rank.stdout for rank in ranks}) == 1
    assert "complete" in ranks[1].stdout
