"""How `warm` shows that it goes on: a bar on a terminal, lines elsewhere; on a slow storage."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import MIB, MakeMount, finish, run_python, start_python, write_file
from terminal_support import COMMAND, at_terminal, run

import slowfs
from shardahead.command import progress_shown
from shardahead.command.progress_shown import show_until_done
from shardahead.command.progress_text import Work
from shardahead.prefetch.progress import Progress

# The same command, with a shorter interval.
OFTEN = f"import shardahead.command.progress_shown as p; p.LINE_SECONDS = 0.2; {COMMAND}"
LINE = re.compile(
    r"shardahead: warm: [0-9.]+ [MK]?i?B of 16\.0 MiB \([0-9.]+ %\), [0-9.,]+ MB/s"
    r"(, [0-9.]+ s left)?"
)


@pytest.fixture
def mount(tmp_path: Path, make_mount: MakeMount) -> slowfs.SlowFs:
    """Two shards that take about a second."""
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        write_file(tmp_path / "source" / name, 8 * MIB)
    return make_mount(tmp_path / "source", rate_mb_per_s=16)


def test_lines_where_there_is_no_terminal(mount: slowfs.SlowFs) -> None:
    done = run("warm", "--block-size", "1MiB", mount.mountpoint, script=OFTEN)
    assert done.returncode == 0
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stderr
    first, *between, last = done.stderr.splitlines()
    assert first == "shardahead: warm: 16.0 MiB, 2 shards"
    assert between
    assert all(LINE.fullmatch(line) for line in between), between
    assert any(line.endswith(" s left") for line in between), between
    assert re.fullmatch(
        r"shardahead: warm: 16\.0 MiB of 16\.0 MiB \(100\.0 %\), [0-9.,]+ MB/s, ended after "
        r"[0-9.]+ s",
        last,
    )
    assert re.fullmatch(r"warm: 16\.0 MiB in [0-9.]+ s, [0-9.,]+ MB/s\n", done.stdout)
    shown = [float(match) for line in between for match in re.findall(r"\(([0-9.]+) %\)", line)]
    assert shown == sorted(shown)


def test_no_line_before_its_time(mount: slowfs.SlowFs) -> None:
    """By default that is longer than this takes."""
    done = run("warm", mount.mountpoint, script=f"{COMMAND}")
    assert len(done.stderr.splitlines()) == 2
    assert progress_shown.LINE_SECONDS == 10


@pytest.mark.parametrize("option", ["--quiet", "-q", "--json"])
def test_quiet(mount: slowfs.SlowFs, option: str) -> None:
    done = run("warm", option, mount.mountpoint, script=OFTEN)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert at_terminal("warm", option, mount.mountpoint).raw.count("\n") == 1


def test_a_bar_on_a_terminal(mount: slowfs.SlowFs) -> None:
    shown = at_terminal("warm", "--block-size", "1MiB", mount.mountpoint)
    assert shown.status == 0
    assert "\x1b[" in shown.raw
    bars = [line for line in shown.lines if line.startswith("warm ")]
    assert max(map(len, shown.lines)) <= 80
    assert re.search(r"[0-9.]+ M?i?B of 16\.0 MiB \([0-9]\.[0-9] %\)", bars[0]), bars
    assert re.fullmatch(r"warm ━+ 16\.0 MiB of 16\.0 MiB \(100\.0 %\) [0-9.,]+ MB/s", bars[-1])
    assert any(re.search(r"MB/s [0-9.]+ s left$", line) for line in bars), bars
    assert re.fullmatch(r"warm: 16\.0 MiB in [0-9.]+ s, [0-9.,]+ MB/s", shown.lines[-2])
    assert not any(line.startswith("shardahead:") for line in shown.lines)


def test_a_bar_without_colours(mount: slowfs.SlowFs) -> None:
    words = ("warm", "--block-size", "1MiB", mount.mountpoint)
    shown = at_terminal(*words, env={"NO_COLOR": "1"})
    assert "16.0 MiB of 16.0 MiB (100.0 %)" in shown.text
    # It grows: what is left is drawn in colour alone.
    drawn = [line.count("━") for line in shown.lines if line.startswith("warm ")]
    assert drawn[0] < 10 < drawn[-1]
    assert not re.search(r"\x1b\[[0-9;]*m", shown.raw.replace("\x1b[0m", ""))


def test_a_terminal_that_cannot_redraw_gets_lines(mount: slowfs.SlowFs) -> None:
    shown = at_terminal("warm", mount.mountpoint, script=OFTEN, env={"TERM": "dumb"})
    assert "\x1b" not in shown.raw
    assert shown.lines[0] == "shardahead: warm: 16.0 MiB, 2 shards"
    assert len([line for line in shown.lines if LINE.fullmatch(line)]) >= 1


def test_no_colour_is_forced_upon_a_pipe(mount: slowfs.SlowFs) -> None:
    done = run("warm", mount.mountpoint, env={"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1"})
    assert "\x1b" not in done.stdout + done.stderr
    done = run("status", mount.mountpoint, env={"FORCE_COLOR": "1"})
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("columns", [20, 40, 200])
def test_any_width(mount: slowfs.SlowFs, columns: int) -> None:
    shown = at_terminal("warm", mount.mountpoint, columns=columns)
    assert shown.status == 0
    bars = [line for line in shown.lines if line.startswith("warm ") or "━" in line]
    assert bars[-1].startswith("warm ")
    assert "100.0" in bars[-1]
    assert max(map(len, bars)) <= columns


HANGS_UP = """
import os, pty, sys, threading
import shardahead.command.cli
from shardahead.command import progress_shown
master, slave = pty.openpty()
os.dup2(slave, 2)
os.close(slave)
real, looks = progress_shown._Bar.look, []
def look(self, progress):
    looks.append(progress)
    if len(looks) == 1:
        os.close(master)  # the terminal goes
    real(self, progress)
progress_shown._Bar.look = look
status = shardahead.command.cli.main(["warm", "--block-size", "1MiB", sys.argv[1]])
print(status, len(looks) > 1)
"""


def test_a_terminal_that_hangs_up_is_no_reason_to_read_less(mount: slowfs.SlowFs) -> None:
    done = finish(start_python(HANGS_UP, mount.mountpoint, env={"TERM": "xterm"}))
    assert done.stdout.splitlines()[-1] == "0 True"
    assert "warm: 16.0 MiB in" in done.stdout


def test_figures_of_progress(mount: slowfs.SlowFs) -> None:
    """Where another has read half of it before, only the rest counts as brought in."""
    script = """
import json, sys
from shardahead import prefetch_files
from pathlib import Path
first, second = sorted(Path(sys.argv[1]).iterdir())
with prefetch_files(first) as handle:
    handle.wait()
with prefetch_files([first, second]) as handle:
    handle.wait()
    progress = handle.progress()
    report = handle.report()
print(json.dumps([progress.planned_bytes, progress.done_bytes, progress.node_read_bytes,
                  report.node_read_bytes, report.read_bytes]))
"""
    planned, done, node_read, node_read_of_report, read = run_python(script, mount.mountpoint)
    assert (planned, done) == (16 * MIB, 16 * MIB)
    assert node_read == node_read_of_report == read == 8 * MIB


class Load:
    """Of 17.4 GB at 300 MB/s, looked at as often as `warm` does; it takes no time."""

    def __init__(self) -> None:
        self._seconds = 0.0

    @property
    def done(self) -> bool:
        return self._seconds >= 58

    def progress(self) -> Progress:
        came = min(int(300e6 * self._seconds), 174 * 10**8)
        return Progress(174 * 10**8, came, came, self._seconds)

    def wait(self, seconds: float) -> None:
        self._seconds = round(self._seconds + seconds, 3)


def test_the_log_of_a_pod_in_which_warm_takes_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    load = Load()
    show_until_done(load, Work(files=4, local_rank=0, local_size=1, own_share=False), load.wait)
    assert capsys.readouterr().err.splitlines() == [
        "shardahead: warm: 16.2 GiB, 4 shards",
        "shardahead: warm: 2.79 GiB of 16.2 GiB (17.2 %), 300 MB/s, 48 s left",
        "shardahead: warm: 5.59 GiB of 16.2 GiB (34.4 %), 300 MB/s, 38 s left",
        "shardahead: warm: 8.38 GiB of 16.2 GiB (51.7 %), 300 MB/s, 28 s left",
        "shardahead: warm: 11.2 GiB of 16.2 GiB (68.9 %), 300 MB/s, 18 s left",
        "shardahead: warm: 14.0 GiB of 16.2 GiB (86.2 %), 300 MB/s, 8.0 s left",
        "shardahead: warm: 16.2 GiB of 16.2 GiB (100.0 %), 300 MB/s, ended after 58 s",
    ]
