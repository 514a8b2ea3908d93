"""What is said of files and folders that may not be read: by whom they may, and who this is. Real
files, and a process that is somebody else.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest
from conftest import StrPath, finish, start_python, write_file

from shardahead.command.failure_text import failure_text
from shardahead.node import access
from shardahead.node.access import Denial, Identity, denial_text, find_denial, why_denied

USER, OWNER, GROUP, ANOTHER = 23456, 12345, 34567, 45678
COMMANDS = ("warm", "status", "evict", "doctor", "stage", "plan")
AS_USER = f"""
import os, sys, shardahead.command.cli
import colorsys, locale, urllib.request  # asked for late: that user may have no way to them
os.setgroups([{GROUP}])
os.setgid({USER})
os.setuid({USER})
os.chdir("/")
sys.exit(shardahead.command.cli.main(sys.argv[1:]))
"""
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def as_user(*words: StrPath, **env: str) -> subprocess.CompletedProcess[str]:
    return finish(start_python(AS_USER, *words, env=env))


def words_of(command: str, path: Path, local: Path) -> list[StrPath]:
    more: dict[str, list[StrPath]] = {
        "warm": ["--quiet"],
        "stage": ["--to", local],
        "doctor": ["--read-bytes", "0"],
    }
    return [command, *more.get(command, []), path]


@pytest.fixture
def model(open_folder: Path) -> Path:
    """Two shards, and beside them a folder for replicas that anyone may write to."""
    for i in (1, 2):
        write_file(open_folder / "m" / f"m-{i}.safetensors", 5000)
    (open_folder / "local").mkdir()
    (open_folder / "local").chmod(0o777)
    return open_folder / "m"


@only_root
@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "plan"])
def test_a_file_that_may_not_be_read(model: Path, command: str) -> None:
    path = model / "m-2.safetensors"
    os.chown(path, OWNER, GROUP)
    path.chmod(0o600)
    done = as_user(*words_of(command, model, model.parent / "local"))
    assert done.returncode == 1
    if command == "stage":
        assert done.stdout == "stage: 9.77 KiB are left: the same command goes on\n"
    assert done.stderr.endswith(
        f"open '{path}': Permission denied: the file is of {OWNER}:{GROUP}, mode 0600, and this is "
        f"{USER} (uid {USER}, groups {USER}, {GROUP}): run it as {OWNER}, or have its owner type "
        f"chmod g+r {path}\n"
    )


@only_root
@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_on_the_way(model: Path, command: str) -> None:
    model.parent.joinpath("link").symlink_to("m")
    (model / "inside").mkdir()
    write_file(model / "inside" / "m.safetensors", 5000)
    model.chmod(0o700)
    path = model.parent / "link" / "inside"
    done = as_user(*words_of(command, path, model.parent / "local"))
    assert done.returncode == 1
    assert done.stderr.endswith(
        f"open '{path}': Permission denied: the folder '{model}' is of root:root, mode 0700, and "
        f"this is {USER} (uid {USER}, groups {USER}, {GROUP}): run it as root, or have its owner "
        f"type chmod o+x {model}\n"
    )


@only_root
def test_the_reason_of_a_json_document(model: Path) -> None:
    model.chmod(0o700)
    done = as_user("status", "--json", model)
    assert "the folder is of root:root, mode 0700" in json.loads(done.stdout)["reason"]


@only_root
@pytest.mark.parametrize("pattern", ["*.safetensors", ""])
def test_a_folder_that_may_be_entered_and_not_listed(model: Path, pattern: str) -> None:
    model.chmod(0o711)
    done = as_user("status", model / pattern)
    assert done.returncode == 1
    assert f"open '{model}': Permission denied: the folder is of root:root, mode 0711" in (
        done.stderr
    )
    assert as_user("status", model / "m-1.safetensors").returncode == 0


@only_root
def test_a_cache_of_somebody_else(model: Path) -> None:
    (model / "hub").mkdir(mode=0o700)
    done = as_user("plan", "org/name", HF_HOME=str(model), HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert f"and the Hugging Face cache '{model}/hub' cannot be read: the folder is of root" in (
        done.stderr
    )


@only_root
def test_what_may_not_be_written_to(model: Path) -> None:
    done = as_user("warm", "-q", "--metrics-file", model / "x.prom", model)
    assert done.returncode == 1
    assert f"--metrics-file '{model}/x.prom': Permission denied: the folder '{model}' is" in (
        done.stderr
    )
    assert done.stderr.endswith("run it as root, or name another folder\n")


# ---- what is to be typed ----


def file(uid: int = OWNER, gid: int = ANOTHER, mode: int = 0o100600, wanted: str = "r") -> Denial:
    return Denial("/m/a b", False, wanted, uid, gid, mode)


@pytest.mark.parametrize(
    ("found", "typed"),
    [
        (file(uid=USER, mode=0o100000), "type chmod u+r '/m/a b'"),
        (file(), f"run it as {OWNER}, or have its owner type chmod o+r '/m/a b'"),
        (file(gid=GROUP), f"run it as {OWNER}, or have its owner type chmod g+r '/m/a b'"),
        (file(mode=0o100640), f"run it as {OWNER}, or as one of the group {ANOTHER}"),
        (file(wanted="", mode=0o100644), "its mode is not what forbids it: "),
    ],
)
def test_what_is_to_be_typed(found: Denial, typed: str) -> None:
    said = denial_text(found, "/m/a b", Identity(USER, (USER, GROUP)))
    assert said.startswith(f"the file is of {found.uid}:{found.gid}, ")
    assert f": {typed}" in said


def test_a_group_that_this_process_is_too_old_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_is_member", lambda gid, _user: gid == ANOTHER)
    said = denial_text(file(mode=0o100640), "/m/a b", Identity(USER, (USER,)))
    assert said.endswith(f"log in anew, or type newgrp {ANOTHER}")


def test_root_is_told_of_servers() -> None:
    said = denial_text(file(wanted=""), "/m/a b", Identity(0, (0,)))
    assert "root_squash" in said


def test_what_is_not_denied_is_not_explained(tmp_path: Path) -> None:
    path = str(write_file(tmp_path / "a", 1))
    found = find_denial(path)
    assert found is not None
    assert found.wanted == ""
    (tmp_path / "loop").symlink_to("loop")
    assert why_denied(str(tmp_path / "loop" / "a")) == ""
    assert why_denied("/\0") == ""
    error = OSError(errno.EIO, "Input/output error", path)
    assert failure_text(error).startswith(f"open {path!r}: Input/output error; ")
    error = OSError(errno.EISDIR, "Is a directory", path)
    assert failure_text(error) == f"open {path!r}: Is a directory"
