"""What is said of filesystems that let go of pages by themselves, as they are known by name: on a
real mount of such a type.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import MIB, MakeMount, finish, start_python, write_file

from shardahead.node.page_keeping import forgetting

COMMAND = "import sys, shardahead.command.cli; sys.exit(shardahead.command.cli.main(sys.argv[1:]))"
JUICEFS = "JuiceFS forgets pages 12 h after their last use"
DAOS = "DAOS dfuse forgets pages 10 min after a file was closed last"


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return finish(start_python(COMMAND, *map(str, words)))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_file(tmp_path / "source" / "a.safetensors", MIB)
    write_file(tmp_path / "source" / "b.safetensors", MIB)
    return tmp_path / "source"


@pytest.mark.parametrize(("subtype", "said"), [("juicefs", JUICEFS), ("daos", DAOS)])
def test_a_mount_that_forgets_is_told_of(
    source: Path, make_mount: MakeMount, subtype: str, said: str
) -> None:
    folder = make_mount(source, subtype=subtype).mountpoint
    warm = run("warm", "-q", folder)
    assert (warm.returncode, warm.stderr) == (0, "")
    assert warm.stdout.count(said) == 1
    assert f"{said}: --keep keeps them warm" in warm.stdout
    status = run("status", folder)
    assert status.returncode == 0
    assert status.stdout.count(said) == 1
    doctor = " ".join(run("doctor", folder).stdout.split())
    name, _, when = said.partition(" forgets ")
    assert f"{name}, which forgets {when}" in doctor


def test_the_others_are_not(source: Path, make_mount: MakeMount) -> None:
    folder = make_mount(source).mountpoint
    assert forgetting([str(folder / "a.safetensors"), str(source / "b.safetensors")]) == []
    for command in ("warm", "status", "doctor"):
        assert "forgets" not in run(command, folder).stdout


def test_each_filesystem_is_named_once(source: Path, make_mount: MakeMount) -> None:
    first = make_mount(source, subtype="juicefs").mountpoint
    second = make_mount(source, subtype="daos").mountpoint
    paths = [str(path) for folder in (first, second) for path in folder.glob("*.safetensors")]
    assert forgetting([*paths, str(first / "gone")]) == [DAOS, JUICEFS]


def test_who_stays_need_not_be_told(source: Path, make_mount: MakeMount) -> None:
    folder = make_mount(source, subtype="daos").mountpoint
    process = start_python(COMMAND, "warm", "-q", "--keep", str(folder))
    assert process.stdout is not None
    told = process.stdout.readline()
    process.terminate()
    done = finish(process)
    assert told.startswith("warm: ")
    assert "forgets" not in told + done.stdout + done.stderr
