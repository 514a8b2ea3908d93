"""What an error of the system means: behind the error itself, once, in each command."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import KIB, MIB, MakeMount, make_cold, write_file
from report_support import changed, load_file

from shardahead import prefetch_files
from shardahead.command import cli
from shardahead.command.error_meanings import (
    meaning_in_document,
    meaning_of,
    why_incomplete,
    with_meaning,
)
from shardahead.command.failure_text import failure_text

#: What each is recognized by.
TOLD = {
    "EIO": "dmesg",
    "EREMOTEIO": "dmesg",
    "ENODEV": "dmesg",
    "EUCLEAN": "have it checked",
    "ENOTCONN": "umount -l",
    "ESTALE": "mount anew",
    "ETIMEDOUT": "server does not answer",
    "EHOSTDOWN": "server does not answer",
    "ECONNREFUSED": "server does not answer",
    "EKEYEXPIRED": "kinit",
    "ENOKEY": "encrypted",
    "ENOMEM": "cgroup",
    "EMFILE": "ulimit -n",
    "ENFILE": "fs.file-max",
    "EACCES": "root_squash",
    "EPERM": "root_squash",
}


def error_of(name: str, operation: str = "pread", offset: int = 4096) -> OSError:
    """As the core raises it."""
    number = getattr(errno, name)
    error: Any = OSError(number, os.strerror(number), "/m/a")
    error.operation, error.offset = operation, offset
    found: OSError = error
    return found


@pytest.mark.parametrize("name", TOLD)
def test_what_it_means_follows_path_and_offset(name: str) -> None:
    error = error_of(name)
    text = with_meaning(error)
    begin = f"pread '/m/a' at offset 4096: {error.strerror}; "
    assert text.startswith(begin)
    assert TOLD[name] in text[len(begin) :]
    assert "\n" not in text
    assert failure_text(error_of(name, "read")).count(TOLD[name]) == 1


@pytest.mark.parametrize("name", ["EISDIR", "ENOENT", "ENAMETOOLONG", "EROFS", "ENOSPC"])
def test_what_says_enough_is_left_as_it_is(name: str) -> None:
    assert meaning_of(error_of(name)) == ""


def test_only_the_words_of_the_system_are_explained() -> None:
    assert meaning_of(OSError(errno.ESTALE, "the file was replaced", "/m/a")) == ""
    assert meaning_of(OSError("no number")) == ""
    assert meaning_of(ValueError("x")) == ""


def test_what_may_not_be_opened_is_told_by_who_denies_it() -> None:
    assert meaning_of(error_of("EACCES", "open")) == ""
    assert meaning_of(PermissionError(errno.EACCES, "Permission denied", "/m/a")) == ""


def test_of_several_errors_the_first_is_explained_once(tmp_path: Path) -> None:
    whole = prefetch_files(write_file(tmp_path / "a", 0)).report()
    errors = (error_of("EIO"), error_of("EACCES"))
    reason = why_incomplete(replace(whole, errors=errors, error_count=2, failed_bytes=4096))
    assert reason is not None
    assert reason.startswith(
        "pread '/m/a' at offset 4096: Input/output error (and 1 more); the sto"
    )
    assert "root_squash" not in reason
    assert why_incomplete(replace(whole, left_out_bytes=4096)) == "4.00 KiB left out"
    assert why_incomplete(whole) is None


@pytest.mark.parametrize(
    "errors",
    [
        *(None, {}, [], [None], [{}], [{"errno": "5", "message": "Input/output error"}]),
        *([{"errno": 2**40, "message": "x"}], [{"errno": True, "message": "x"}]),
        [{"errno": 5, "message": 7}],
    ],
)
def test_a_document_may_hold_anything(errors: Any) -> None:
    assert meaning_in_document(errors) == ""


def test_report_explains_what_a_load_only_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def failed(document: dict[str, Any]) -> None:
        document["reason"] = "pread '/m/a' at offset 4096: Permission denied"
        document["report"]["errors"] = [
            {"errno": errno.EACCES, "message": "Permission denied", "operation": "pread"}
        ]

    path = changed(load_file(tmp_path), "failed.json", failed)
    assert cli.main(["report", str(path)]) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("incomplete")]
    assert "at offset 4096: Permission denied; it could be opened, and is denied all" in line
    assert line.count("root_squash") == 1


@pytest.mark.parametrize("command", ["warm", "stage", "doctor"])
def test_a_page_that_cannot_be_read_is_explained_once(
    tmp_path: Path, make_mount: MakeMount, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = write_file(tmp_path / "source" / "m" / "a.safetensors", 32 * MIB)
    (tmp_path / "local").mkdir()
    mount = make_mount(tmp_path / "source")
    # All but the first page, for doctor reads here and there.
    mount.bad("m/a.safetensors", 64 * KIB, shard.stat().st_size)
    make_cold(mount.mountpoint / "m" / "a.safetensors")
    words = {"stage": ["--to", str(tmp_path / "local")]}.get(command, [])
    status = cli.main([command, str(mount.mountpoint / "m"), *words])
    said = capsys.readouterr()
    assert status == 1
    assert said.err.count("Input/output error") == said.err.count("dmesg") == 1
    assert "a.safetensors' at offset " in said.err
    if command == "doctor":  # which has a page all the same
        assert "not all of what was asked for could be read" in said.out
        assert "Input/output error" not in said.out


def test_a_mount_whose_server_has_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What stat(2) and open(2) of it say; that a path is looked at is no reason to say less."""
    error = error_of("ENOTCONN", "open", 0)
    assert failure_text(error).endswith("and mount it again")
    folder = tmp_path / "mnt"
    folder.mkdir()
    assert cli.main(["warm", str(folder / "m")]) == 1
    assert f"'{folder}' is empty; a filesystem that is not mounted there?" in (
        capsys.readouterr().err
    )
