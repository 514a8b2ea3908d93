"""The test bed of benchmarks/cluster: what it reckons, that it runs, that nothing of it is left.
The figures are `make cluster`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import REPOSITORY, clean_environment, eventually

sys.path.insert(0, str(REPOSITORY / "benchmarks" / "cluster"))
import cluster_memory
from cluster_figures import (
    Run,
    Setting,
    link_bytes_of_burst,
    needed_bytes,
    own_failures,
    problems,
    spread,
    table,
    wrong_bytes,
)
from cluster_options import parse_options

HERE = REPOSITORY / "benchmarks" / "cluster"
SIZE = 1_000_000_000
SETTING = Setting(
    nodes=4,
    size_bytes=SIZE,
    storage_mb_per_s=200,
    storage_shared=True,
    node_link_mb_per_s=1000,
    round_trip_ms=1,
    readahead_kib=4096,
    rounds=3,
    fault="none",
    fault_node=3,
)
RUN = Run("exchange", 10.0, 7.5, SIZE, (1, 750_000_000), (750_000_000, 0), 8.0, 0.5)


def test_the_limit_is_the_storage_once_or_what_the_others_have_read() -> None:
    assert SETTING.limit_seconds == 5.0
    assert replace(SETTING, storage_shared=False).limit_seconds == 1.25
    assert replace(SETTING, node_link_mb_per_s=100).limit_seconds == 7.5
    assert replace(SETTING, node_link_mb_per_s=0).limit_seconds == 5.0
    assert replace(SETTING, nodes=1, node_link_mb_per_s=1).limit_seconds == 5.0


def test_the_title_says_what_was_measured() -> None:
    assert SETTING.title == (
        "4 nodes, 0.93 GiB, storage 200 MB/s for all, links 1000 MB/s each way: limit 5.00 s"
    )
    alone = replace(SETTING, storage_shared=False, fault="stop").title
    assert "200 MB/s for each node" in alone
    assert alone.endswith("; node 3: stop")


def test_the_table() -> None:
    runs = [
        RUN,
        replace(RUN, seconds=11.0),
        replace(RUN, seconds=15.0, first_byte_seconds=10.0, served_bytes=SIZE * 11 // 10),
        replace(RUN, method="broadcast", seconds=None, problem="node 1 ended: it broke"),
    ]
    lines = table(runs, SETTING, {"rsync": "no rsync"}).splitlines()
    assert lines[2:] == [
        "| exchange | 11.0 (10.0-15.0) | 2.20 (2.00-3.00) | 7.5 (7.5-10.0) | 1.50 (1.50-2.00) "
        "| 1.000 (1.000-1.100) | 0.75 | 0.75 | 8.0 | 0.5 |",
        "| broadcast | failed |  |  |  |  |  |  |  |  |",
        "| rsync | not measured: no rsync | | | | | | | | |",
    ]
    assert len({line.count("|") for line in lines}) == 1


def test_runs_that_came_to_nothing_are_counted_and_those_with_wrong_bytes_have_no_time() -> None:
    failed = replace(RUN, seconds=None, problem="it broke")
    wrong = replace(RUN, wrong="a file of node 1")
    text = table([RUN, failed, wrong], SETTING, {})
    assert "| exchange, 2 of 3 without a time | 10.0 |" in text
    assert problems([RUN, failed, failed]) == ["exchange: it broke"]
    assert wrong_bytes([RUN, failed, wrong]) == ["exchange: wrong bytes: a file of node 1"]
    assert len(own_failures([RUN, failed], ["exchange"])) == 1
    assert own_failures([failed], ["alone"]) == []


def test_values_that_do_not_differ_have_no_spread() -> None:
    assert spread([1.04, 1.01, 0.96], 1) == "1.0"
    assert spread([1.0, 3.0, 1.5], 1) == "1.5 (1.0-3.0)"


def test_memory_and_the_rate_of_a_link() -> None:
    assert needed_bytes(3, 100, 10) == 430
    assert link_bytes_of_burst(1000) == (2_000_000, 20_000_000)
    assert link_bytes_of_burst(1) == (256 << 10, 1 << 20)


def test_the_ballast_shrinks_by_what_a_run_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mib = 1 << 20
    memory = {"MemAvailable": 2000 * mib, "MemFree": 1000 * mib}
    monkeypatch.setattr(cluster_memory, "_meminfo", lambda name: memory[name])
    ballast = cluster_memory.Ballast(tmp_path, 640 * mib)

    def held() -> int:
        return (tmp_path / "ballast").stat().st_size // mib

    ballast.load()
    assert held() == 640 - 256
    memory["MemFree"] += 256 * mib
    ballast.yield_to_run()
    assert held() == 640 - 256
    memory["MemFree"] -= 100 * mib
    ballast.yield_to_run()
    assert held() == 640 - 356
    memory["MemFree"] = 0
    ballast.yield_to_run()
    assert held() == 0
    memory["MemAvailable"] = 600 * mib
    ballast.load()
    assert held() == 304 - 256  # pieces of 16 MiB


def test_options_that_make_no_sense_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_options(["--nodes", "8"]).fault_node == 7
    for words, said in (
        (["--nodes", "65"], "--nodes must be between 1 and 64"),
        (["--methods", "alone,pigeon"], "no pigeon"),
        (["--storage-mb-per-s", "0"], "the storage has one"),
        (["--nodes", "2", "--fault-node", "2"], "no node 2"),
        (["--nodes", "1", "--fault", "kill"], "no node 0 beside another"),
    ):
        with pytest.raises(SystemExit):
            parse_options(words)
        assert said in capsys.readouterr().err


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "cluster.py"), "--nodes", "2", "--size-mib", "32", *words],
        env={**clean_environment(), "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def skip_where_nothing_is_measured(said: str) -> None:
    if said.startswith("nothing was measured: "):
        pytest.skip(said.strip())


def processes_of(folder: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if str(folder) in text:
            found.append(text)
    return found


@pytest.mark.parametrize("fault", ["none", "kill"])
def test_a_small_cluster(tmp_path: Path, fault: str) -> None:
    figures = tmp_path / "figures.json"
    words = ("--rounds", "1", "--fault", fault, "--json", str(figures))
    slowly = ("--methods", "alone,exchange", "--storage-mb-per-s", "10") if fault == "kill" else ()
    said, complaints = (bed := start(tmp_path, *words, *slowly)).communicate()
    skip_where_nothing_is_measured(said)
    assert bed.returncode == 0, complaints
    runs = {run["method"]: run for run in json.loads(figures.read_text())["runs"]}
    size = json.loads(figures.read_text())["setting"]["size_bytes"]
    for run in runs.values():
        assert run["seconds"] is not None, run
        assert f"| {run['method']} |" in said
    if fault == "none":
        assert runs["alone"]["served_bytes"] >= 2 * size
        assert runs["exchange"]["served_bytes"] < 1.5 * size
        assert max(runs["alone"]["into_bytes"]) < 0.1 * size
        for method in ("exchange", "broadcast"):
            assert max(runs[method]["into_bytes"]) > 0.4 * size
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == [figures]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whoever_ends_it_nothing_is_left(tmp_path: Path, number: signal.Signals) -> None:
    bed = start(tmp_path, "--methods", "exchange", "--storage-mb-per-s", "1")
    assert bed.stdout is not None

    def stages() -> bool:
        return bed.poll() is not None or any(
            "shardahead stage" in p for p in processes_of(tmp_path)
        )

    eventually(stages, "nothing is staged", seconds=100)
    if bed.poll() is None:
        os.kill(bed.pid, number)
    said, _ = bed.communicate()
    skip_where_nothing_is_measured(said)
    assert bed.returncode != 0
    eventually(lambda: not processes_of(tmp_path), "processes are left", seconds=30)
    # Who is killed can remove nothing; what is left has nothing in it.
    left = list(tmp_path.iterdir())
    assert left == [] or number == signal.SIGKILL
    assert all(list(folder.iterdir()) == [] for folder in left)
