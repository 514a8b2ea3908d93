"""Which paths lead to the same file: links do, equal inode numbers alone prove nothing.

A mount of slowfs gives all files one number, as some filesystems do; where the tests need no mount,
only the answers of stat(2) are the same.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    MIB,
    MakeMount,
    eventually,
    finish,
    held,
    let_go,
    resident_bytes,
    start_python,
)
from shard_support import names_of, write, write_index

from shardahead import prefetching
from shardahead._core import LoaderProgress
from shardahead.checkpoint.file_identity import first_of_same
from shardahead.checkpoint.shards import resolve_checkpoint, resolve_shards

NAMES = [f"model-{i}.safetensors" for i in range(3)]
ITERATORS = ("safetensors_weights_iterator", "buffered_multi_thread_safetensors_weights_iterator")


@pytest.fixture(params=[7, 0])
def same_inodes(request: pytest.FixtureRequest, make_mount: MakeMount, numbered: Path) -> Path:
    """`numbered` and its index on a mount where every file has that number; of equal mtime."""
    tensors = {f"{i}.{j}": NAMES[i] for i in range(3) for j in range(8)}
    index = numbered / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": tensors}))
    for name in NAMES:
        os.utime(numbered / name, ns=(10**18, 10**18))
    mount = make_mount(numbered, same_inodes=request.param)
    assert {os.stat(mount.mountpoint / name).st_ino for name in NAMES} == {request.param}
    return mount.mountpoint


@pytest.fixture
def one_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is said to have device, inode, size and mtime of every other."""

    def statuses(paths: Sequence[bytes]) -> list[tuple[int, int, int, int, int]]:
        return [(os.stat(path).st_mode, os.stat(path).st_size, 1, 2, 3) for path in paths]

    monkeypatch.setattr("shardahead._core.statuses", statuses)


# ---- what is the same ----


def test_links_are_the_same_file(tmp_path: Path) -> None:
    first = write(tmp_path / "1.bin", 100_000)
    os.link(first, tmp_path / "2.bin")
    os.symlink("2.bin", tmp_path / "3.bin")
    (tmp_path / "sub").mkdir()
    os.symlink("../1.bin", tmp_path / "sub" / "4.bin")
    found = resolve_shards([*tmp_path.glob("*.bin"), tmp_path / "sub" / "4.bin", first])
    assert names_of(found) == ["1.bin"]


@pytest.mark.usefixtures("one_status")
@pytest.mark.parametrize("size", [0, 1, 5000, 200_000])
def test_equal_contents_of_one_number_are_the_same_file(tmp_path: Path, size: int) -> None:
    paths = [write(tmp_path / name, size) for name in ("a.bin", "b.bin")]
    assert names_of(resolve_shards(paths)) == ["a.bin"]
    assert names_of(resolve_shards(tmp_path)) == ["a.bin"]


@pytest.mark.usefixtures("one_status")
@pytest.mark.parametrize("at", [0, 4096, 65_535, 199_999])
def test_other_contents_of_one_number_are_another_file(tmp_path: Path, at: int) -> None:
    size = 65_536 if at < 65_536 else 200_000
    paths = [write(tmp_path / f"{name}.bin", size) for name in "abcd"]
    with open(paths[2], "r+b") as file:
        file.seek(at)
        file.write(b"y")
    assert names_of(resolve_shards(paths)) == ["a.bin", "c.bin"]


@pytest.mark.usefixtures("one_status")
def test_what_cannot_be_read_is_not_proved_to_be_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write(tmp_path / f"{name}.bin", 100_000) for name in "ab"]

    def fails(*_: Any) -> bytes:
        raise OSError(5, "no")

    monkeypatch.setattr(os, "pread", fails)
    assert names_of(resolve_shards(paths)) == ["a.bin", "b.bin"]


@pytest.mark.usefixtures("one_status")
def test_a_file_is_opened_once_for_all_of_its_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(write(tmp_path / f"{name}.bin", 200_000)) for name in "ab"]
    opened, really_open = [], os.open

    def noted(path: str, flags: int) -> int:
        opened.append(path)
        return really_open(path, flags)

    with monkeypatch.context() as patched:  # pytest itself opens folders otherwise
        patched.setattr("shardahead.checkpoint.opening.os.open", noted)
        assert names_of(resolve_shards(paths)) == ["a.bin"]
    # The second of them while it is compared with the first, which is opened for that once more.
    assert opened == [paths[0], paths[1], paths[0]]
    assert not {os.readlink(f"/proc/self/fd/{n}") for n in _descriptors()} & {*paths}


def _descriptors() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # of the listing itself
        found.append(int(name))
    return found


@pytest.mark.usefixtures("one_status")
def test_what_is_no_regular_file_by_now_is_not_read(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / f"{name}.bin", 5000)) for name in "ab"]
    os.unlink(paths[1])
    os.mkfifo(paths[1])
    statuses = [(0o100644, 5000, 1, 2, 3)] * 2
    assert first_of_same(paths, statuses, compare_contents=True) == [0, 1]


def test_another_size_or_mtime_is_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write(tmp_path / f"{name}.bin") for name in "abc"]
    found = [(0o100644, 1, 1, 2, 3), (0o100644, 1, 1, 2, 4), (0o100644, 2, 1, 2, 3)]
    monkeypatch.setattr("shardahead._core.statuses", lambda _: found)
    assert names_of(resolve_shards(paths)) == ["a.bin", "b.bin", "c.bin"]


@pytest.mark.usefixtures("one_status")
def test_what_an_index_names_is_never_dropped(tmp_path: Path) -> None:
    first = write(tmp_path / "a.bin", 5000)
    write(tmp_path / "b.bin", 5000)
    os.link(first, tmp_path / "c.bin")
    os.symlink("a.bin", tmp_path / "d.bin")
    index = write_index(tmp_path / "x.index.json", "a.bin", "b.bin", "c.bin", "d.bin")
    found = resolve_checkpoint(index)
    assert names_of(list(found.shards)) == ["a.bin", "b.bin", "c.bin"]
    assert found.owners == {"tensor.0": 0, "tensor.1": 1, "tensor.2": 2, "tensor.3": 0}


# ---- files of one number are loaded, all of them ----


def test_all_files_are_found(same_inodes: Path) -> None:
    paths = [same_inodes / name for name in NAMES]
    index = same_inodes / "model.safetensors.index.json"
    for files in (same_inodes, index, paths, reversed(paths)):
        assert names_of(resolve_shards(files)) == NAMES


@pytest.mark.parametrize("files", ["folder", "list"])
def test_all_tensors_come_in_every_mode(same_inodes: Path, files: str) -> None:
    pytest.importorskip("torch")
    import shardahead

    given: Any = same_inodes if files == "folder" else [same_inodes / name for name in NAMES]
    expected = {f"{i}.{j}": 8 * i + j for i in range(3) for j in range(8)}
    ways: list[dict[str, Any]] = [{}, {"prefetch": False}, {"mode": "pread"}, {"mode": "mmap"}]
    for name in ITERATORS:
        for way in [*ways, {"names": list(expected)}]:
            weights = getattr(shardahead, name)(given, **way)
            assert {n: int(t[0]) for n, t in weights} == expected, (name, way)


def test_all_tensors_come_when_it_is_disabled(
    same_inodes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from shardahead import safetensors_weights_iterator

    monkeypatch.setenv("SHARDAHEAD_DISABLE", "1")
    assert len(list(safetensors_weights_iterator(same_inodes))) == 24


def test_all_of_several_pt_files_come(make_mount: MakeMount, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from shardahead import pt_weights_iterator

    source = tmp_path / "source"
    source.mkdir()
    for i in range(3):
        path = source / f"m-{i}.bin"
        torch.save({f"w{i}": torch.full((1000,), float(i))}, path)
        os.utime(path, ns=(10**18, 10**18))
    mount = make_mount(source, same_inodes=7)
    for way in ({}, {"prefetch": False}, {"mode": "pread"}):
        found = {n: float(t[0]) for n, t in pt_weights_iterator(mount.mountpoint, **way)}
        assert found == {"w0": 0.0, "w1": 1.0, "w2": 2.0}


def test_the_command_sees_all_files(same_inodes: Path) -> None:
    size = sum((same_inodes / name).stat().st_size for name in NAMES)
    script = "import sys; from shardahead.command.cli import main; sys.exit(main(sys.argv[1:]))"
    for command in ("warm", "status", "evict"):
        done = finish(start_python(script, command, "--json", os.fspath(same_inodes)))
        found = json.loads(done.stdout)
        assert done.returncode == 0, done.stderr
        if command == "warm":
            assert found["planned_bytes"] == size
        else:
            assert [os.path.basename(file["path"]) for file in found["files"]] == NAMES
            assert found["resident_bytes"] == (size if command == "status" else 0)


def test_a_prefetch_brings_in_all_of_them(same_inodes: Path) -> None:
    paths = [same_inodes / name for name in NAMES]
    with prefetching(same_inodes) as handle:
        handle.wait()
    assert all(resident_bytes(path) == path.stat().st_size for path in paths)


# ---- nothing else takes one for another ----


def test_two_checkpoints_share_no_board(
    make_mount: MakeMount, numbered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "models"
    for folder in ("a", "b"):
        shutil.copytree(numbered, source / folder)
        for path in (source / folder).iterdir():
            os.utime(path, ns=(10**18, 10**18))
    mount = make_mount(source, same_inodes=7)
    boards = tmp_path / "boards"
    boards.mkdir(mode=0o700)
    monkeypatch.setenv("SHARDAHEAD_BOARD_FOLDER", str(boards))
    handles = [held(mount.mountpoint / folder) for folder in ("a", "b", "a")]
    assert [handle.report().partition for handle in handles] == ["dynamic"] * 3
    assert len(list(boards.iterdir())) == 2
    for handle in handles:
        let_go(handle)
        handle.stop()


def test_processes_that_mount_it_elsewhere_share_a_board(
    numbered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if os.system(f"mount --bind {numbered} {elsewhere} 2>/dev/null") != 0:
        pytest.skip("no bind mounts here: that takes root")
    try:
        boards = tmp_path / "boards"
        boards.mkdir(mode=0o700)
        monkeypatch.setenv("SHARDAHEAD_BOARD_FOLDER", str(boards))
        handles = [held(folder) for folder in (numbered, elsewhere)]
        assert len(list(boards.iterdir())) == 1
        for handle in handles:
            let_go(handle)
            handle.stop()
        del handles, handle
    finally:
        eventually(lambda: os.system(f"umount {elsewhere} 2>/dev/null") == 0, "it stays mounted")


def test_a_loader_of_one_file_is_not_taken_for_one_of_another(same_inodes: Path) -> None:
    paths = [same_inodes / name for name in NAMES]
    progress = LoaderProgress([os.fsencode(path) for path in paths])
    with open(paths[1], "rb") as file:
        file.seek(6 * MIB)
        assert [end for end, _ in progress.look(MIB * 64)] == [0, 6 * MIB, 0]
    index = LoaderProgress([os.fsencode(paths[0])])
    with open(same_inodes / "model.safetensors.index.json", "rb") as file:
        file.read()
        assert index.look(64 * MIB) == [(0, False)]


def test_a_loader_that_maps_one_file_of_many(same_inodes: Path) -> None:
    import mmap

    try:
        Path("/proc/self/pagemap").open("rb").close()
    except OSError as error:
        pytest.skip(f"this system does not show what was touched: {error}")
    paths = [same_inodes / name for name in NAMES]
    progress = LoaderProgress([os.fsencode(path) for path in paths])
    with open(paths[1], "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[3 * MIB] is not None
        assert [is_mapped for _, is_mapped in progress.look(64 * MIB)] == [False, True, False]
        assert progress.look(64 * MIB)[1][0] > 3 * MIB
