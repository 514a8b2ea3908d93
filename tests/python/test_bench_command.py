"""`shardahead bench`: where it looks for shardahead-bench, and what it hands over to it.

What that program measures and prints is in test_bench.py.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import StrPath, write_file

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


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write_file(tmp_path / "models" / "a.safetensors", 10)


def program_in(folder: Path) -> Path:
    program = folder / "shardahead-bench"
    program.parent.mkdir()
    program.touch(0o755)
    return program


def handed_over(started: list[tuple[str, list[str]]], *words: StrPath) -> list[str]:
    """To the program, by a command of these words."""
    started.clear()
    with pytest.raises(StartedError):
        cli.main(["bench", *map(os.fsdecode, words)])
    ((_, handed),) = started
    assert handed[0] == "shardahead-bench"
    return handed[1:]


@pytest.mark.parametrize("where", ["scripts", "beside", "path"])
def test_the_command_becomes_the_program(
    tmp_path: Path, shard: Path, started: list[tuple[str, list[str]]], where: str
) -> None:
    program = program_in(tmp_path / where)
    assert handed_over(started, shard) == [f"--shown-as={shard}", "--", str(shard)]
    assert started[0][0] == str(program)


@pytest.mark.usefixtures("capsys")
def test_paths_are_those_of_every_command(
    tmp_path: Path,
    started: list[tuple[str, list[str]]],
    hub_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program_in(tmp_path / "path")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "models"
    names = ["2.safetensors", "10.safetensors"]
    first, second = [str(write_file(folder / name, 10)) for name in names]
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": names[1], "y": names[0]}}))
    snapshot = hub_cache / "models--a--b" / "snapshots" / "1"
    cached = str(write_file(snapshot / "m.safetensors", 10))

    def files(*words: StrPath) -> list[str]:
        handed = handed_over(started, *words)
        return handed[handed.index("--") + 1 :]

    assert files(index) == files(folder) == [second, first]
    assert files(folder / "*0.safetensors") == [second]
    assert files("--include", "2*", folder) == files("--exclude=10*", folder) == [first]
    assert files("--all", folder, "a/b") == [second, first, cached]
    odd = os.fsencode(folder) + b"/\xff.bin"
    os.close(os.open(odd, os.O_CREAT))
    assert files(odd) == [os.fsdecode(odd)]


def test_what_is_recommended_names_what_was_typed(
    tmp_path: Path, shard: Path, started: list[tuple[str, list[str]]]
) -> None:
    program_in(tmp_path / "path")
    words = ["--include", "a*", "--exclude=b c", "--exclude=-*", "--all", str(shard.parent)]
    shown = handed_over(started, *words)[0].removeprefix("--shown-as=")
    assert shown == f"'--include=a*' '--exclude=b c' '--exclude=-*' --all {shard.parent}"
    # A glob that begins with "-" is taken as it was.
    again = handed_over(started, *shlex.split(shown))
    assert again == handed_over(started, *words)


def test_options_have_the_names_of_other_commands_and_their_old_ones(
    tmp_path: Path, shard: Path, started: list[tuple[str, list[str]]]
) -> None:
    program_in(tmp_path / "path")
    words = ["--strategy", "pread,auto", "--block-size", "4MiB", "--threads=1,8", "--json"]
    expected = ["--strategy=pread,auto", "--threads=1,8", "--block-size=4MiB", "--json", "--"]
    assert handed_over(started, *words, shard)[1:-1] == expected
    words = ["--strategies", "pread,auto", "--block-sizes", "4MiB", "--threads=1,8", "--json"]
    assert handed_over(started, *words, shard)[1:-1] == expected
    words = ["--states=cold", "--repeats", "5", "--limit", "1GiB", "--output", "m.json"]
    assert handed_over(started, *words, shard)[1:-1] == [
        *("--states=cold", "--repeats=5", "--limit=1GiB", "--output=m.json", "--")
    ]


def test_verbose_is_handed_over(
    tmp_path: Path, shard: Path, started: list[tuple[str, list[str]]]
) -> None:
    program_in(tmp_path / "path")
    assert handed_over(started, "-v", shard)[1:-1] == ["--verbose", "--"]
    assert handed_over(started, "--json", "--verbose", shard)[1:-1] == [
        *("--verbose", "--json", "--")
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--inflight", "4MiB"], "error: --inflight is an option of warm: bench reads without"),
        (["--rate-limit=20MB"], "error: --rate-limit is an option of warm: bench reads as fast"),
        (["-V"], "error: unrecognized arguments: -V"),
    ],
)
def test_options_of_warm_that_mean_nothing_here(
    words: list[str],
    said: str,
    shard: Path,
    started: list[tuple[str, list[str]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["bench", *words, str(shard)])
    assert (left.value.code, started) == (2, [])
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 2


def test_the_command_says_where_it_looked(
    tmp_path: Path,
    shard: Path,
    started: list[tuple[str, list[str]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["bench", str(shard)]) == 1
    assert started == []
    said = capsys.readouterr().err
    assert str(tmp_path / "scripts") in said
    assert "on PATH" in said


def test_a_path_that_is_not_there_is_named(
    tmp_path: Path, started: list[tuple[str, list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    program_in(tmp_path / "path")
    assert cli.main(["bench", str(tmp_path / "nothing")]) == 1
    assert started == []
    assert "nothing" in capsys.readouterr().err


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
