"""`evict` and `warm` of files that live in memory, and of those the kernel does not tell of."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MIB, NOBODY, finish, make_cold, resident_bytes, start_python, write_file

from shardahead.node.mounts import memory_types, mount_of

COMMAND = "import sys, shardahead.command.cli; sys.exit(shardahead.command.cli.main(sys.argv[1:]))"
AS_NOBODY = f"""
import os, sys, shardahead.command.cli
import locale  # which argparse asks for late: nobody may have no way to the interpreter's folder
os.setgid({NOBODY})
os.setuid({NOBODY})
sys.exit(shardahead.command.cli.main(sys.argv[1:]))
"""


def run(*words: object, script: str = COMMAND) -> subprocess.CompletedProcess[str]:
    return finish(start_python(script, *map(str, words)))


def mounted(*words: object) -> None:
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder on a tmpfs."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    folder = tmp_path / "memory"
    folder.mkdir()
    mounted("-t", "tmpfs", "-o", "size=16m", "tmpfs", folder)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_evict_on_tmpfs_says_that_it_is_memory(in_memory: Path, tmp_path: Path) -> None:
    write_file(in_memory / "a.safetensors", MIB)
    done = run("evict", in_memory)
    assert done.returncode == 1
    assert "1.00 MiB stayed: these files live in memory (tmpfs)" in done.stderr
    assert "mapped" not in done.stderr
    assert json.loads(run("evict", "--json", in_memory).stdout)["reason"] in done.stderr
    # Beside a file of a disk, which is dropped.
    on_disk = write_file(tmp_path / "b.safetensors", MIB)
    if mount_of(on_disk).mount_class == "memory":
        pytest.skip("the temporary folder is in memory")
    done = run("evict", in_memory / "a.safetensors", on_disk)
    assert done.stderr.count("stayed") == 1
    assert resident_bytes(on_disk) == 0


def test_warm_on_tmpfs_has_nothing_to_do(in_memory: Path) -> None:
    write_file(in_memory / "a.safetensors", MIB)
    done = run("warm", "-q", in_memory)
    assert (done.returncode, done.stderr) == (0, "")
    assert "the files live in memory (tmpfs)" in done.stdout
    document = json.loads(run("warm", "--json", in_memory).stdout)
    assert (document["resident_bytes"], document["reason"]) == (MIB, None)


@pytest.mark.parametrize("where", ["lower", "upper"])
def test_an_overlay_of_memory_and_disk(in_memory: Path, tmp_path: Path, where: str) -> None:
    layers = {
        "lower": in_memory if where == "lower" else tmp_path / "lower",
        "upper": (in_memory if where == "upper" else tmp_path) / "upper",
    }
    work = (in_memory if where == "upper" else tmp_path) / "work"
    merged = tmp_path / "merged"
    for folder in (*layers.values(), work, merged):
        folder.mkdir(exist_ok=True)
    for name, folder in layers.items():
        write_file(folder / f"{name}.safetensors", MIB)
    options = f"lowerdir={layers['lower']},upperdir={layers['upper']},workdir={work}"
    mounted("-t", "overlay", "-o", options, "overlay", merged)
    try:
        paths = [str(merged / f"{name}.safetensors") for name in layers]
        found = memory_types(paths)
        done = run("evict", *paths)
    finally:
        subprocess.run(["umount", "-l", merged], check=True)
    assert found == {str(merged / f"{where}.safetensors"): "tmpfs"}
    assert "1.00 MiB stayed: these files live in memory (tmpfs)" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_what_is_not_known_is_not_called_done(open_folder: Path) -> None:
    path = write_file(open_folder / "a.safetensors", MIB)
    path.chmod(0o444)
    make_cold(path)
    document = json.loads(run("status", "--json", path, script=AS_NOBODY).stdout)
    if document["resident_bytes"] is not None:
        pytest.skip("this kernel answers cachestat(2) for the files of others")
    assert document["reason"] is None
    done = run("evict", "--json", path, script=AS_NOBODY)
    assert done.returncode == 1
    assert "what stayed of 1 file is not known: the kernel tells" in done.stderr
