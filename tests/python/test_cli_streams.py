"""Standard streams of a command that are closed, full, or read by nobody any more."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import (
    HANG_SECONDS,
    MIB,
    clean_environment,
    is_resident,
    make_cold,
    run_python,
    write_file,
)

COMMANDS = ["warm", "status", "evict", "plan", "doctor"]
CLOSED = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(2):
        write_file(tmp_path / "model" / f"a-{i}.safetensors", MIB)
    make_cold(*(tmp_path / "model").iterdir())
    return tmp_path / "model"


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def buffering(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", request.param)


def run(words: Sequence[object], redirected: str = "") -> subprocess.CompletedProcess[str]:
    """`shardahead` below a shell that has closed or redirected its streams."""
    command = shlex.join([sys.executable, "-m", "shardahead", *map(str, words)])
    return shell(f"{command} {redirected}")


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=HANG_SECONDS,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_closed_streams_count_as_dev_null(folder: Path, command: str) -> None:
    for closed in CLOSED:
        words = [command, folder, *(["--quiet"] if command == "warm" else [])]
        done = run(words, closed)
        assert (done.returncode, done.stderr) == (0, ""), closed
        assert (done.stdout == "") == (">&-" in closed.split()), closed
        if command in ("warm", "evict"):
            there = [is_resident(path) for path in folder.iterdir()]
            assert there == [command == "warm"] * 2, closed


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full"])
def test_errors_without_a_standard_error(tmp_path: Path, redirected: str) -> None:
    assert run(["warm", tmp_path / "missing"], redirected).returncode == 1
    assert run(["status", tmp_path], redirected).returncode == 2
    assert run(["warm", "--no-such-option"], redirected).returncode == 2


@pytest.mark.usefixtures("buffering")
def test_a_full_disk_is_an_error(folder: Path) -> None:
    for words in (
        ["warm", folder, "-q"],
        ["status", folder],
        ["plan", folder, "--json"],
        ["--help"],
    ):
        done = run(words, ">/dev/full")
        assert (done.returncode, done.stdout) == (1, "")
        full = f"cannot write to standard output: {os.strerror(errno.ENOSPC)}\n"
        assert done.stderr == f"shardahead: {full}"
    assert run(["warm", folder], ">/dev/full 2>/dev/full").returncode == 1


@pytest.mark.usefixtures("buffering")
def test_a_reader_that_has_gone(folder: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m shardahead"
    for words in (f"status {folder}", "warm --help"):
        # The reader has closed its end before the first byte is written.
        done = shell(f"set -o pipefail; {{ sleep 0.2; {command} {words}; }} | true")
        assert (done.returncode, done.stderr) == (128 + 13, "")
    done = shell(f"set -o pipefail; {{ sleep 0.2; {command} status /missing; }} 2>&1 | true")
    assert done.returncode == 1


# What is printed to a stream that was closed must not end up in a file that has its number.
STRAY = """
import os, sys
import shardahead.command.cli
from shardahead.command import commands
real = commands.start_prefetch
def printing(*arguments, **options):
    handle = real(*arguments, **options)
    for descriptor in (1, 2):
        os.write(descriptor, b"stray")  # as any C library may
    return handle
commands.start_prefetch = printing
sys.exit(shardahead.command.cli.main(["warm", sys.argv[1]]))
"""


def test_files_do_not_get_the_numbers_of_closed_streams(folder: Path) -> None:
    python = shlex.join([sys.executable, "-c", STRAY, str(folder)])
    assert shell(f"{python} <&- >&- 2>&-").returncode == 0
    assert all(path.stat().st_size == MIB for path in folder.iterdir())
    assert all(is_resident(path) for path in folder.iterdir())


LIBRARY = """
import json, logging, os, sys
out = os.fdopen(os.dup(1), "w")
sys.stdout = sys.stderr = sys.stdin = None
for descriptor in (0, 1, 2):
    os.close(descriptor)
os.environ["SHARDAHEAD_NO_SUCH"] = "1"  # so that something is logged
import shardahead
with shardahead.prefetch_files(sys.argv[1]) as handle:
    handle.wait()
json.dump(handle.report().to_dict(), out)
"""


def test_the_library_without_standard_streams(folder: Path) -> None:
    report = run_python(LIBRARY, folder)
    assert report["complete"]
    assert report["planned_bytes"] == 2 * MIB
