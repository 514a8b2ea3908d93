"""Signals that end a command: SIGINT, SIGTERM and SIGHUP, also as PID 1 of a container, where what
has no handler is ignored. What was done by then is reported.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    FOREVER_SECONDS,
    MIB,
    MakeMount,
    clean_environment,
    eventually,
    finish,
    start_python,
    write_file,
)

import slowfs
from shardahead.command import cli
from shardahead.command.endings import ENDING_SIGNALS, ended_by_signals

NAMES = ["a-1.safetensors", "a-2.safetensors", "a-3.safetensors"]
PID_1 = ["unshare", "--pid", "--fork"]


def said_of(number: int) -> str:
    ends = {signal.SIGINT: "interrupted"}
    return ends.get(signal.Signals(number), f"terminated by {signal.Signals(number).name}")


@pytest.fixture
def stalled(tmp_path: Path, make_mount: MakeMount) -> Iterator[slowfs.SlowFs]:
    """Three shards, of which the second is answered in an hour."""
    for name in NAMES:
        write_file(tmp_path / "source" / name, 4 * MIB)
    mount = make_mount(tmp_path / "source")
    mount.stall(NAMES[1], 0, FOREVER_SECONDS)
    yield mount
    assert mount.counters().in_flight, "nothing was stalled"


def start(*words: object, before: list[str] | None = None, **options: Any) -> subprocess.Popen[str]:
    command = [*(before or []), sys.executable, "-m", "shardahead", *map(str, words)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
        **options,
    )


def wait_until_stalled(mount: slowfs.SlowFs, process: subprocess.Popen[str]) -> None:
    eventually(lambda: mount.counters().in_flight or process.poll() is not None, "nothing stalls")
    assert process.poll() is None, process.communicate()


def pid_1_of(unshare: subprocess.Popen[str]) -> int:
    """The process that is PID 1 below `unshare`, by the number that it has here."""
    path = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
    eventually(lambda: path.read_text().split() or unshare.poll() is not None, "starts nothing")
    if unshare.poll() is not None:
        pytest.skip(f"no PID namespace here: {unshare.communicate()[1]}")
    return int(path.read_text().split()[0])


# ---- warm, on a storage that does not answer ----


@pytest.mark.parametrize(
    ("number", "options"),
    [(signal.SIGHUP, ["--json"]), (signal.SIGINT, []), (signal.SIGTERM, []), (15, ["--json"])],
)
def test_warm_ends_with_a_report_of_what_it_did(
    stalled: slowfs.SlowFs, number: signal.Signals, options: list[str]
) -> None:
    process = start("warm", "--threads", 1, *options, stalled.mountpoint)
    wait_until_stalled(stalled, process)
    process.send_signal(number)
    done = finish(process)
    assert done.returncode == 128 + number
    said = done.stderr.splitlines()
    assert said[-1] == f"shardahead: incomplete: {said_of(number)}"
    assert len(said) == (1 if options else 2)  # with where it began, and nothing of an end
    if options:
        report = json.loads(done.stdout)
        assert report["reason"] == said_of(number)
        assert 4 * MIB <= report["read_bytes"] + report["resident_bytes"] < 12 * MIB
    else:
        assert done.stdout.startswith("warm: ")
        assert "MiB left out" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes PID namespaces everywhere")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare(1)")
@pytest.mark.parametrize("number", ENDING_SIGNALS)
@pytest.mark.parametrize("command", ["warm", "bench"])
def test_as_pid_1_of_a_container(
    stalled: slowfs.SlowFs, number: signal.Signals, command: str
) -> None:
    if command == "bench" and shutil.which("shardahead-bench", path=scripts()) is None:
        pytest.skip("shardahead-bench is not installed into this environment")
    process = start(command, stalled.mountpoint, before=PID_1)
    pid = pid_1_of(process)
    wait_until_stalled(stalled, process)
    os.kill(pid, number)
    done = finish(process)
    assert done.returncode == 128 + number
    assert said_of(number) in done.stderr
    assert done.stdout


def scripts() -> str:
    return str(Path(sys.executable).parent)


def test_what_is_ignored_stays_ignored(stalled: slowfs.SlowFs) -> None:
    """As under nohup: the terminal goes, the work goes on."""
    process = start(
        "warm", stalled.mountpoint, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    wait_until_stalled(stalled, process)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    done = finish(process)
    assert done.returncode == 128 + signal.SIGTERM
    assert "SIGHUP" not in done.stderr


# ---- every command, in a call that a server does not answer ----

# The core's look at the second shard does not return: a call in C, without the GIL.
BLOCKED = """
import ctypes, signal, sys
import shardahead.command.cli
from shardahead import _core

def blocking(real, when):
    def call(argument, *rest):
        if when(argument):
            print("blocked", file=sys.stderr, flush=True)
            while True:
                ctypes.CDLL(None).pause()
        return real(argument, *rest)
    return call

where, words = sys.argv[1], sys.argv[2:]
if where == "start":
    _core.statuses = blocking(_core.statuses, lambda _: True)
else:
    for name in ("residency", "evict"):
        second = lambda path: b"a-2" in path
        setattr(_core, name, blocking(getattr(_core, name), second))
sys.exit(shardahead.command.cli.main(words))
"""


def end_blocked(number: int, where: str, *words: object) -> subprocess.CompletedProcess[str]:
    process = start_python(BLOCKED, where, *map(str, words))
    assert process.stderr is not None
    assert process.stderr.readline() == "blocked\n"
    process.send_signal(number)
    return finish(process)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        write_file(tmp_path / "model" / name, MIB)
    return tmp_path / "model"


@pytest.mark.parametrize("command", ["warm", "status", "evict", "plan", "doctor"])
def test_before_any_file_is_known(folder: Path, command: str) -> None:
    done = end_blocked(signal.SIGTERM, "start", command, "--json", folder)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr == "shardahead: incomplete: terminated by SIGTERM\n"
    assert json.loads(done.stdout)["reason"] == "terminated by SIGTERM"


@pytest.mark.parametrize(
    ("command", "number"),
    [("status", signal.SIGINT), ("status", signal.SIGTERM), ("evict", signal.SIGHUP)],
)
def test_what_was_seen_by_then_is_shown(folder: Path, command: str, number: signal.Signals) -> None:
    done = end_blocked(number, "second file", command, "--json", folder)
    assert done.returncode == 128 + number
    document = json.loads(done.stdout)
    assert document["reason"] == said_of(number)
    files = document["files"]
    assert [Path(file["path"]).name for file in files] == NAMES
    assert [file["resident_bytes"] is None for file in files] == [False, True, True]
    assert files[1]["reason"] == files[2]["reason"] == "not looked at"


def test_a_table_of_what_was_seen(folder: Path) -> None:
    done = end_blocked(signal.SIGHUP, "second file", "status", folder)
    assert done.returncode == 128 + signal.SIGHUP
    assert "unknown: not looked at" in done.stdout
    assert done.stdout.count("unknown") == 3  # two files, the reason
    assert "it is not known how much of 3.00 MiB is resident, at least 1.00 MiB" in done.stdout


def test_doctor_shows_the_mounts_that_it_has_seen(folder: Path) -> None:
    done = end_blocked(signal.SIGTERM, "second file", "doctor", "--json", folder)
    assert done.returncode == 128 + signal.SIGTERM
    document = json.loads(done.stdout)
    assert (document["mounts"], document["reason"]) == ([], "terminated by SIGTERM")
    assert document["memory"]


# ---- manners ----

TWICE = """
import signal
from shardahead.command.endings import ended_by_signals
with ended_by_signals():
    try:
        print("ready", flush=True)
        while True: signal.pause()
    except KeyboardInterrupt:
        print("first", flush=True)
    while True: signal.pause()
"""


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGINT), (signal.SIGHUP,) * 2])
def test_a_second_signal_ends_it_there_and_then(numbers: tuple[int, int]) -> None:
    process = start_python(TWICE)
    assert process.stdout is not None
    for number, line in zip(numbers, ("ready\n", "first\n"), strict=True):
        assert process.stdout.readline() == line
        process.send_signal(number)
    assert finish(process).returncode == 128 + numbers[1]


def test_handlers_of_a_program_stay() -> None:
    before = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with ended_by_signals():
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGHUP) != before[signal.SIGHUP]
    finally:
        signal.signal(signal.SIGTERM, before[signal.SIGTERM])
    assert {number: signal.getsignal(number) for number in ENDING_SIGNALS} == before


def test_a_command_in_another_thread(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the main thread gets signals; the command is the same elsewhere."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(cli.main(["plan", str(folder)])))
    thread.start()
    thread.join()
    assert found == [0]
    assert NAMES[0] in capsys.readouterr().out
