"""The variables SHARDAHEAD_*: switches, counts, those that nothing reads, and typed commands."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from conftest import (
    MIB,
    REPOSITORY,
    finish,
    is_resident,
    make_cold,
    messages,
    resident_bytes,
    start_python,
    write_file,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from shardahead import environment, prefetch_files
from shardahead.environment import VARIABLES, is_on, new_warning, unread_variables
from shardahead.prefetch.options import is_disabled, resolve_options

COMMAND = "import sys, shardahead.command.cli; sys.exit(shardahead.command.cli.main(sys.argv[1:]))"
THREADS = "SHARDAHEAD_THREADS"


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_said", set())


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = write_file(tmp_path / "a.safetensors", MIB)
    make_cold(path)
    return path


# ---- switches ----


@pytest.mark.parametrize("word", ["1", "true", "yes", "on"])
def test_a_switch_that_is_on(word: str) -> None:
    for text in (word, word.upper(), word.title(), f" {word}\t"):
        assert is_on("X", {"X": text})


@pytest.mark.parametrize("word", ["0", "false", "no", "off", ""])
def test_a_switch_that_is_off(word: str) -> None:
    for text in (word, word.upper(), f"  {word} "):
        assert not is_on("X", {"X": text})
    assert not is_on("X", {})


@pytest.mark.parametrize("text", ["2", "maybe", "disable", "none", "y", "-1", "1.0", "on off"])
def test_a_switch_that_is_neither(shard: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    message = rf"^SHARDAHEAD_DISABLE must be one of 1, .*, off, not {re.escape(repr(text))}$"
    with pytest.raises(ValueError, match=message):
        is_disabled({"SHARDAHEAD_DISABLE": text})
    monkeypatch.setenv("SHARDAHEAD_DISABLE", text)
    with pytest.raises(ValueError, match="SHARDAHEAD_DISABLE"):
        prefetch_files(shard)


@pytest.mark.parametrize("text", ["off", "OFF", "no", "0"])
def test_what_is_not_disabled_prefetches(
    shard: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SHARDAHEAD_DISABLE", text)
    with prefetch_files(shard) as handle:
        handle.wait()
    assert handle.report().planned_bytes == MIB


# ---- a command that is typed ----


def test_a_command_that_is_typed_does_its_work(shard: Path) -> None:
    env = {"SHARDAHEAD_DISABLE": "1"}
    done = finish(start_python(COMMAND, "warm", "-q", shard, env=env))
    assert done.returncode == 0
    assert "warm: 1.00 MiB in" in done.stdout
    assert "SHARDAHEAD_DISABLE" in done.stderr
    assert done.stderr.count("\n") == 1
    assert is_resident(shard)


@pytest.mark.parametrize("name", ["SHARDAHEAD_DISABLE", THREADS, "SHARDAHEAD_BLOCK_SIZE"])
def test_or_says_why_not(shard: Path, name: str) -> None:
    done = finish(start_python(COMMAND, "warm", shard, env={name: "maybe"}))
    assert done.returncode == 2
    assert done.stderr.startswith(f"shardahead: {name}")
    assert "'maybe'" in done.stderr
    assert resident_bytes(shard) == 0


# ---- counts ----


@pytest.mark.parametrize(
    "text", ["abc", "4MiB", "4 MiB", "4k", "4.0", "0x4", "1e1", "\u0664", "+4"]
)
def test_a_count_is_no_number_of_bytes(text: str) -> None:
    message = rf"^SHARDAHEAD_THREADS: not a whole number: {re.escape(repr(text))}$"
    with pytest.raises(ValueError, match=message):
        resolve_options(environ={THREADS: text})


def test_counts() -> None:
    assert resolve_options(environ={THREADS: " 7 "}).threads == 7
    for text in ("0", "257", "9" * 30):
        with pytest.raises(ValueError, match=rf"^{THREADS} must be between 1 and 256, not {text}$"):
            resolve_options(environ={THREADS: text})
    with pytest.raises(ValueError, match=f"^{THREADS}"):
        resolve_options(environ={THREADS: "9" * 5000})


# ---- what nothing reads ----


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SHARDAHEAD_THREAD", THREADS),
        ("SHARDAHEAD_THRAEDS", THREADS),
        ("SHARDAHEAD_BLOCKSIZE", "SHARDAHEAD_BLOCK_SIZE"),
        ("SHARDAHEAD_DISABLED", "SHARDAHEAD_DISABLE"),
        ("SHARDAHEAD_WINDOW", "SHARDAHEAD_WINDOW_BYTES"),
        ("SHARDAHEAD_BOARD_DIR", "SHARDAHEAD_BOARD_FOLDER"),
        ("shardahead_threads", THREADS),
        ("SHARD_AHEAD_THREADS", THREADS),
        ("SHARDAHAED_DISABLE", "SHARDAHEAD_DISABLE"),
        ("SHARDAHEAD_XYZ", None),
        ("SHARDAHEAD_", None),
    ],
)
def test_misspelt_variables(name: str, meant: str | None) -> None:
    assert unread_variables({name: "1", THREADS: "4", "PATH": "/"}) == {name: meant}
    assert unread_variables({name: ""}) == {}


def test_variables_that_are_not_meant_for_us() -> None:
    of_kubernetes = [
        "SERVICE_HOST",
        "SERVICE_PORT",
        "SERVICE_PORT_HTTP",
        "PORT",
        "PORT_80_TCP_ADDR",
    ]
    names = [*VARIABLES, *(f"SHARDAHEAD_{name}" for name in of_kubernetes), "SHARDS", "SHARD_COUNT"]
    assert unread_variables(dict.fromkeys(names, "1")) == {}


@settings(max_examples=30)
@given(st.dictionaries(st.text(), st.text()))
def test_any_environment_is_looked_at(environ: dict[str, str]) -> None:
    unread_variables(environ)
    unread_variables({f"SHARDAHEAD_{name}": text for name, text in environ.items()})


def test_one_warning_names_them_all() -> None:
    environ = {"SHARDAHEAD_XYZ": "1", "SHARDAHEAD_A\nB": "1", "SHARDAHEAD_THREAD": "8"}
    warning = new_warning(environ)
    assert warning is not None
    assert warning.isprintable()
    assert "SHARDAHEAD_THREAD (did you mean SHARDAHEAD_THREADS?)" in warning
    assert "SHARDAHEAD_XYZ" in warning
    assert new_warning(environ) is None


def test_a_load_warns_once(
    shard: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SHARDAHEAD_THREAD", "8")
    with caplog.at_level(logging.WARNING, "shardahead"):
        for _ in range(2):
            with prefetch_files(shard) as handle:
                handle.wait()
    (message,) = messages(caplog)
    assert "SHARDAHEAD_THREAD " in message


@pytest.mark.parametrize("command", ["warm", "status", "evict", "plan", "doctor"])
def test_a_command_warns_once(shard: Path, command: str) -> None:
    words = [command, *(["--quiet"] if command == "warm" else [])]
    done = finish(start_python(COMMAND, *words, shard, env={"SHARDAHEAD_THREAD": "8"}))
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("shardahead: ")
    assert "did you mean SHARDAHEAD_THREADS?" in line
    if command == "doctor":
        assert "unset SHARDAHEAD_THREAD" in done.stdout


def test_every_variable_is_documented_and_known() -> None:
    page = (REPOSITORY / "docs" / "settings.md").read_text()
    assert set(re.findall(r"SHARDAHEAD_[A-Z_]*[A-Z]", page)) == set(VARIABLES)
    source = "\n".join(path.read_text() for path in (REPOSITORY / "python").rglob("*.py"))
    named = set(re.findall(r"\bSHARDAHEAD_[A-Z_]*[A-Z]\b", source))
    assert {name for name in named if unread_variables({name: "1"})} == set()
