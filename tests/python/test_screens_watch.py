"""`status --watch` and `status --require`: what a script, a probe and a person see of them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import MIB, finish, make_cold, write_file
from terminal_support import Terminal, run, start

NAMES = ["a-1.safetensors", "a-2.safetensors"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards, of which the second is resident."""
    for name in NAMES:
        write_file(tmp_path / "m" / name, MIB)
    make_cold(*(tmp_path / "m").iterdir())
    (tmp_path / "m" / NAMES[1]).read_bytes()
    return tmp_path / "m"


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


# ---- a share that is required ----


@pytest.mark.parametrize(
    ("share", "status"), [("50%", 0), ("0.5", 0), ("0%", 0), ("50.1%", 1), ("100%", 1), ("1", 1)]
)
def test_a_probe(folder: Path, share: str, status: int) -> None:
    done = run("status", "--require", share, folder)
    assert done.returncode == status
    assert done.stdout.startswith("status: 1.00 MiB of 2.00 MiB resident (50.0 %)\n")
    reason = f"50.0 % of 2.00 MiB is resident, required is {share}"
    assert done.stderr == (f"shardahead: incomplete: {reason}\n" if status else "")
    document = json.loads(run("status", "--json", f"--require={share}", folder).stdout)
    assert document["reason"] == (reason if status else None)
    assert document["resident_bytes"] == MIB


@pytest.mark.parametrize("share", ["100", "101%", "-1%", "much", "50 GiB", ""])
def test_a_share_that_is_none(folder: Path, share: str) -> None:
    done = run("status", f"--require={share}", folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--require: must be a share from 0% to 100%, as 100% or 0.995, not {share!r}" in (
        " ".join(done.stderr.split())
    )


def test_a_probe_of_what_is_not_there(folder: Path) -> None:
    assert run("status", "--require", "0%", folder / "missing").returncode == 1
    (folder / "empty").mkdir()
    assert run("status", "--require", "0%", folder / "empty").returncode == 2


# ---- again and again ----


def test_a_line_for_each_look(folder: Path) -> None:
    process = start("status", "--watch", "0.1", folder)
    for _ in range(3):
        assert next_line(process) == "status: 1.00 MiB of 2.00 MiB resident (50.0 %)\n"
    (folder / NAMES[0]).read_bytes()
    while not next_line(process).startswith("status: 2.00 MiB of 2.00 MiB resident (100.0 %)"):
        pass
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert (done.returncode, done.stderr) == (130, "")
    assert "\x1b" not in done.stdout


def test_what_became_resident_meanwhile_is_told_as_a_rate(folder: Path) -> None:
    process = start("status", "--watch", "0.5", folder)
    assert "MB/s" not in next_line(process)
    (folder / NAMES[0]).read_bytes()
    line = next_line(process)
    while "100.0 %" not in line:
        line = next_line(process)
    assert re.search(r"\(100\.0 %\), \+[0-9.,]+ MB/s$", line)
    process.send_signal(signal.SIGTERM)
    assert finish(process).returncode == 128 + signal.SIGTERM


def test_an_object_for_each_look(folder: Path) -> None:
    process = start("status", "--json", "--watch=0.1", folder)
    for _ in range(2):
        document = json.loads(next_line(process))
        assert document["resident_bytes"] == MIB
        assert [Path(file["path"]).name for file in document["files"]] == NAMES
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert (done.returncode, done.stderr) == (130, "")
    assert all(json.loads(line)["files"] for line in done.stdout.splitlines())


def test_a_wait_until_it_is_resident(folder: Path) -> None:
    process = start("status", "--watch", "0.1", "--require", "100%", folder)
    next_line(process)
    assert process.poll() is None
    (folder / NAMES[0]).read_bytes()
    done = finish(process)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith(
        "status: 2.00 MiB of 2.00 MiB resident (100.0 %)"
    )
    assert run("status", "--watch", "--require", "100%", folder).returncode == 0


def test_a_wait_that_is_ended_says_so(folder: Path) -> None:
    process = start("status", "--watch", "--require=100%", folder)
    next_line(process)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert (done.returncode, done.stderr) == (130, "shardahead: incomplete: interrupted\n")


def test_each_object_has_the_reason(folder: Path) -> None:
    process = start("status", "--json", "--watch=0.1", "--require=100%", folder)
    reason = "50.0 % of 2.00 MiB is resident, required is 100%"
    for _ in range(2):
        assert json.loads(next_line(process))["reason"] == reason
    (folder / NAMES[0]).read_bytes()
    done = finish(process)
    assert (done.returncode, done.stderr) == (0, "")
    *before, last = [json.loads(line)["reason"] for line in done.stdout.splitlines()]
    assert last is None
    assert None not in before


def test_in_a_pipe_there_is_more_where_it_is_asked_for(folder: Path) -> None:
    (folder / NAMES[0]).read_bytes()
    line = "status: 2.00 MiB of 2.00 MiB resident (100.0 %)"

    def shown(*words: str) -> list[str]:
        done = run("status", "--watch", "--require", "100%", *words, folder)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    assert shown() == [line]
    told = shown("-v")
    assert (told[0], told[-1]) == (line, "")
    assert re.fullmatch(r"told by: \w+ 2 shards", told[-2])
    each = shown("--each")
    assert (each[0], each[-1]) == (line, "")
    assert [text.split()[0] for text in each if "1.00 MiB" in text] == NAMES
    assert shown("--each", "-v") == [*each[:-1], *told[1:]]


def test_on_a_terminal_it_is_told_who_has_told_it(folder: Path) -> None:
    terminal = Terminal()
    words = ("status", "--watch", "--require", "0%")
    assert "told by:" not in terminal.shown(terminal.start(*words, folder)).text
    terminal = Terminal()
    shown = terminal.shown(terminal.start(*words, "-v", folder))
    assert shown.status == 0
    assert re.search(r"told by: \w+ 2 shards", shown.text)


def test_a_terminal_is_redrawn(folder: Path) -> None:
    terminal = Terminal()
    process = terminal.start("status", "--watch", "0.1", folder)
    terminal.read_until(r"\(50\.0 %\)")
    (folder / NAMES[0]).read_bytes()
    terminal.read_until(r"\(100\.0 %\)")
    process.send_signal(signal.SIGINT)
    shown = terminal.shown(process)
    assert shown.status == 130
    assert "\x1b[?25l" in shown.raw  # the cursor, which comes back
    assert shown.raw.rindex("\x1b[?25h") > shown.raw.rindex("\x1b[?25l")
    assert shown.raw.count("\n") > 2
    assert "\x1b[2K" in shown.raw
    last = shown.text[shown.text.rindex("status: ") :]
    assert [line.split()[0] for line in last.splitlines() if "MiB" in line][1:] == NAMES


def test_a_terminal_that_is_too_low_for_each_shard(tmp_path: Path) -> None:
    for i in range(30):
        write_file(tmp_path / "m" / f"a-{i}.safetensors", 4096)
    terminal = Terminal(rows=24)
    shown = terminal.shown(terminal.start("status", "--watch", "--require", "0%", tmp_path / "m"))
    assert shown.status == 0
    assert "--each shows every shard" in shown.text
    assert "a-17.safetensors" not in shown.text


def test_the_lines_of_folders_count_as_well(tmp_path: Path) -> None:
    folders = [tmp_path / f"{i}-{'long-' * 20}" for i in range(5)]
    for folder in folders:
        write_file(folder / "a.safetensors", 4096)
    words = ["status", "--watch", "--require", "0%", *map(str, folders)]
    low, high = Terminal(rows=24), Terminal(rows=26)
    assert "--each shows every shard" in low.shown(low.start(*words)).text
    shown = high.shown(high.start(*words)).text
    last = shown[shown.rindex("status: ") :]
    assert last.count("a.safetensors") == len(folders)


def test_a_terminal_that_cannot_redraw(folder: Path) -> None:
    terminal = Terminal()
    words = ("status", "--watch", "0.1", "--require", "50%", folder)
    shown = terminal.shown(terminal.start(*words, env={"TERM": "dumb"}))
    assert shown.raw == "status: 1.00 MiB of 2.00 MiB resident (50.0 %)\r\n"


def test_a_path_after_watch_is_a_path(folder: Path) -> None:
    path = str(folder)
    for words in (["--watch", path], [path, "--watch"], ["--watch", "--json", path]):
        process = start("status", *words)
        assert re.search("1.00 MiB of 2.00 MiB|2097152", next_line(process))
        process.send_signal(signal.SIGINT)
        assert finish(process).returncode == 130


@pytest.mark.parametrize("seconds", ["0", "-1", "0.01", "1e9", "1.2.3"])
def test_seconds_that_are_none(folder: Path, seconds: str) -> None:
    done = run("status", f"--watch={seconds}", folder)
    assert (done.returncode, done.stdout) == (2, "")
    said = " ".join(done.stderr.split())
    assert f"--watch: must be a number of seconds, 0.1 to 86400, not {seconds!r}" in said


def test_a_reader_that_goes_ends_it(folder: Path) -> None:
    process = start("status", "--watch", "0.1", folder)
    next_line(process)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
