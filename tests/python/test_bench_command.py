"""`shardahead bench`: where it looks for shardahead-bench, and that it hands everything over.

What that program measures and prints is in test_bench.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from shardahead import __version__
from shardahead.command import cli


class StartedError(Exception):
    """Stands for the program that would run from here on."""


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What would have been started; nothing is installed but what a test puts into a folder."""
    calls: list[tuple[str, list[str]]] = []

    def execv(path: str, words: list[str]) -> None:
        calls.append((path, words))
        raise StartedError

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path / "scripts"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "beside" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return calls


@pytest.mark.parametrize("where", ["scripts", "beside", "path"])
def test_the_command_hands_everything_over(
    tmp_path: Path, started: list[tuple[str, list[str]]], where: str
) -> None:
    program = tmp_path / where / "shardahead-bench"
    program.parent.mkdir()
    program.touch(0o755)
    with pytest.raises(StartedError):
        cli.main(["bench", "--help", "--", "bench", "/models/m"])
    words = ["shardahead-bench", "--help", "--", "bench", "/models/m"]
    assert started == [(str(program), words)]


def test_the_command_says_where_it_looked(
    tmp_path: Path, started: list[tuple[str, list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "/models/m"]) == 1
    assert started == []
    said = capsys.readouterr().err
    assert str(tmp_path / "scripts") in said
    assert "on PATH" in said


def test_the_command_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "bench" in capsys.readouterr().out


def test_the_installed_command_becomes_the_program() -> None:
    if shutil.which("shardahead-bench", path=sysconfig.get_path("scripts")) is None:
        pytest.skip("shardahead-bench is not installed into this environment")
    command = [sys.executable, "-m", "shardahead", "bench", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"shardahead-bench {__version__}\n"
