"""`warm` by several local ranks, as torchrun starts them: one of them tells, for the node."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from conftest import MIB, MakeMount, finish, rank_variables, write_file
from terminal_support import COMMAND, Terminal, start

import slowfs

RANKS = 4
OFTEN = f"import shardahead.command.progress_shown as p; p.LINE_SECONDS = 0.2; {COMMAND}"


@pytest.fixture
def mount(tmp_path: Path, make_mount: MakeMount) -> slowfs.SlowFs:
    """Two shards that take a while."""
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        write_file(tmp_path / "source" / name, 8 * MIB)
    return make_mount(tmp_path / "source", rate_mb_per_s=8)


def start_ranks(*words: object) -> list[subprocess.Popen[str]]:
    """The first of them has begun before the others start, so that it sees all that they do."""
    variables = rank_variables(RANKS, {"SHARDAHEAD_BLOCK_SIZE": "512KiB"})
    first = start("warm", *map(str, words), script=OFTEN, env=variables[0])
    assert first.stderr is not None
    assert first.stderr.readline().startswith("shardahead: warm: ")
    others = [start("warm", *map(str, words), env=each) for each in variables[1:]]
    return [first, *others]


def test_rank_0_alone_tells_and_its_figures_are_the_nodes(mount: slowfs.SlowFs) -> None:
    ranks = [finish(rank) for rank in start_ranks(mount.mountpoint)]
    assert [rank.returncode for rank in ranks] == [0] * RANKS
    assert [(rank.stdout, rank.stderr) for rank in ranks[1:]] == [("", "")] * (RANKS - 1)
    assert re.fullmatch(
        r"warm: 16\.0 MiB in [0-9.]+ s, [0-9.,]+ MB/s \(4 local ranks\)\n", ranks[0].stdout
    )
    *between, last = ranks[0].stderr.splitlines()
    assert between
    assert "warm: 16.0 MiB of 16.0 MiB (100.0 %)" in last


def test_what_the_node_reads_is_counted_by_each_from_its_start(mount: slowfs.SlowFs) -> None:
    variables = rank_variables(2, {"SHARDAHEAD_BLOCK_SIZE": "512KiB"})
    # The one that shows lines is asked for them; the figures of both are in their JSON.
    script = COMMAND.replace("main(sys.argv[1:])", "main(['warm', '--json', *sys.argv[1:]])")
    ranks = [start(mount.mountpoint, script=script, env=each) for each in variables]
    found = [json.loads(finish(rank).stdout) for rank in ranks]
    assert [rank["local_rank"] for rank in found] == [0, 1]
    read = sum(rank["read_bytes"] for rank in found)  # some of it by both at the same time
    for rank in found:
        assert rank["read_bytes"] <= rank["node_read_bytes"] <= read
    # Whoever came first has seen all of it.
    assert max(rank["node_read_bytes"] for rank in found) >= 16 * MIB


def test_each_tells_of_itself_where_it_is_asked(mount: slowfs.SlowFs) -> None:
    ranks = [finish(rank) for rank in start_ranks("-v", mount.mountpoint)]
    assert "(4 local ranks)" in ranks[0].stdout.splitlines()[0]
    for number, rank in enumerate(ranks):
        (line,) = rank.stdout.splitlines()[-1:]
        assert f"local rank {number} of 4 (LOCAL_RANK" in line
        assert len(rank.stdout.splitlines()) == (2 if number == 0 else 1)


def test_a_share_that_no_one_counts_for_the_node_is_called_so(mount: slowfs.SlowFs) -> None:
    ranks = [finish(rank) for rank in start_ranks("--partition", "block", mount.mountpoint)]
    assert [rank.returncode for rank in ranks] == [0] * RANKS
    assert [(rank.stdout, rank.stderr) for rank in ranks[1:]] == [("", "")] * (RANKS - 1)
    assert "(share of local rank 0 of 4)" in ranks[0].stdout


def test_one_bar_on_one_terminal(mount: slowfs.SlowFs) -> None:
    variables = rank_variables(RANKS)
    first, *others = variables
    terminals = [Terminal() for _ in variables]
    ranks = [
        terminal.start("warm", mount.mountpoint, env=each)
        for terminal, each in zip(terminals, [first, *others], strict=True)
    ]
    shown = [terminal.shown(rank) for terminal, rank in zip(terminals, ranks, strict=True)]
    assert [each.status for each in shown] == [0] * RANKS
    assert [each.raw for each in shown[1:]] == [""] * (RANKS - 1)
    assert "16.0 MiB of 16.0 MiB (100.0 %)" in shown[0].text


def test_errors_are_told_by_those_who_have_them(tmp_path: Path, mount: slowfs.SlowFs) -> None:
    mount.bad("model-00002-of-00002.safetensors", 2 * MIB, 4096)
    ranks = [finish(rank) for rank in start_ranks(mount.mountpoint)]
    assert ranks[0].returncode == 1
    said = [line for rank in ranks for line in rank.stderr.splitlines() if "incomplete" in line]
    # Whoever read the block, and rank 0, which tells for the node.
    assert 1 <= len(said) <= 2
    assert sum("Input/output error" in line for line in said) == 1
    for rank in ranks[1:]:
        assert rank.stdout == ""
        assert rank.returncode in (0, 1)  # one that came later finds nothing to do
    missing = [start("warm", tmp_path / "missing", env=each) for each in rank_variables(2)]
    for rank in map(finish, missing):
        assert rank.returncode == 1
        assert rank.stderr.count("\n") == 1
