"""Mounts as the running kernel has them. The parser and its fixtures are tested in C++."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import KIB, MIB, MakeMount, write_file

from shardahead import Mount, mount_of
from shardahead.checkpoint.shards import resolve_shards
from shardahead.node.mounts import folder_below_mount, mounts_of


@pytest.fixture
def mounts() -> Iterator[ExitStack]:
    """Unmounts at the end what mount() has mounted."""
    with ExitStack() as stack:
        yield stack


def mount(stack: ExitStack, *arguments: str | Path) -> None:
    """mount(8) with the mount point last; skips where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    stack.callback(subprocess.run, ["umount", "-l", arguments[-1]], check=False)


def test_shared_memory() -> None:
    found = mount_of("/dev/shm")
    if found.type != "tmpfs":
        pytest.skip(f"/dev/shm is {found.type} here")
    assert (found.mount_class, found.mount_point, found.layers) == ("memory", "/dev/shm", ())
    assert found.request_bytes is None
    assert "rw" in found.options


def test_a_bind_mount_is_a_mount_of_its_own(tmp_path: Path, mounts: ExitStack) -> None:
    source, target = tmp_path / "a source", tmp_path / "a target"
    write_file(source / "f", 10)
    target.mkdir()
    mount(mounts, "--bind", source, target)
    found, below = mount_of(target / "f"), mount_of(source / "f")
    assert found.mount_point == str(target)  # with its space
    assert found.root.endswith(str(source)[len(below.mount_point.rstrip("/")) :])
    assert found.id != below.id
    assert (found.device, found.type) == (below.device, below.type)


def test_what_is_mounted_over_another_counts(tmp_path: Path, mounts: ExitStack) -> None:
    before = mount_of(tmp_path)
    for size in ("1m", "2m"):
        mount(mounts, "-t", "tmpfs", "-o", f"size={size}", "none", tmp_path)
    found = mount_of(tmp_path)
    assert found.option("size") == "2048k"
    assert found.id != before.id


def test_a_read_only_mount_of_a_writable_filesystem(tmp_path: Path, mounts: ExitStack) -> None:
    mount(mounts, "--bind", tmp_path, tmp_path)
    mount(mounts, "-o", "remount,bind,ro", tmp_path)
    options = mount_of(tmp_path).options
    assert options[0] == "ro"
    assert len(options) == len(set(options))


def test_an_overlay_with_its_layers(tmp_path: Path, mounts: ExitStack) -> None:
    names = ["lower a", "lower,b", "upper", "work", "shown"]
    for name in names:
        (tmp_path / name).mkdir()
    mount(mounts, "-t", "tmpfs", "none", tmp_path / "lower a")
    lower = f"{tmp_path}/lower a:{tmp_path}/lower\\,b"
    options = f"lowerdir={lower},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    mount(mounts, "-t", "overlay", "-o", options, "none", tmp_path / "shown")
    found = mount_of(tmp_path / "shown")
    layers = [(Path(layer.path).name, layer.upper) for layer in found.layers]
    assert layers == [("upper", True), ("lower a", False), ("lower,b", False)]
    here = mount_of(tmp_path)
    assert [layer.mount.type for layer in found.layers] == [here.type, "tmpfs", here.type]
    assert found.mount_class == here.mount_class


def test_slowfs_is_of_user_space(tmp_path: Path, make_mount: MakeMount) -> None:
    write_file(tmp_path / "source" / "a.safetensors", MIB)
    slow = make_mount(tmp_path / "source", readahead_kib=256)
    found = mount_of(slow.mountpoint / "a.safetensors")
    assert found.type == "fuse.slowfs"
    assert found.mount_class == "user_space"
    assert found.mount_point == str(slow.mountpoint)
    assert found.read_ahead_bytes == 256 * KIB
    assert int(Path(found.read_ahead_path).read_text()) == 256


def test_a_link_into_another_filesystem(tmp_path: Path, make_mount: MakeMount) -> None:
    write_file(tmp_path / "source" / "a.safetensors", MIB)
    slow = make_mount(tmp_path / "source")
    folder = tmp_path / "folder"
    write_file(folder / "b.safetensors", MIB)
    (folder / "a.safetensors").symlink_to(slow.mountpoint / "a.safetensors")
    used = mounts_of(resolve_shards(folder))
    assert [(m.type, [Path(s.path).name for s in shards]) for m, shards in used] == [
        ("fuse.slowfs", ["a.safetensors"]),
        (mount_of(folder).type, ["b.safetensors"]),
    ]


def test_where_the_files_lie_is_told_of_what_links_lead_to(
    tmp_path: Path, make_mount: MakeMount
) -> None:
    for name in ("a", "b"):
        write_file(tmp_path / "source" / "m" / name / f"{name}.safetensors", MIB)
    slow = make_mount(tmp_path / "source")
    links = [tmp_path / "links" / f"{name}.safetensors" for name in ("a", "b")]
    links[0].parent.mkdir()
    for link in links:
        link.symlink_to(slow.mountpoint / "m" / link.stem / link.name)
    found = mount_of(links[0])
    assert folder_below_mount(found, [links[0]]) == "m/a"
    assert folder_below_mount(found, links) == "m"


def test_each_way_to_name_a_path(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a \n\xff"))
    write_file(path, 10)
    found: set[Mount] = {mount_of(path), mount_of(str(path)), mount_of(os.fsencode(path))}
    assert len(found) == 1


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        mount_of(tmp_path / "missing")
    assert caught.value.filename == str(tmp_path / "missing")
    with pytest.raises(ValueError, match="NUL"):
        mount_of(f"{tmp_path}\0")
    with pytest.raises(TypeError):
        mount_of(3)  # type: ignore[arg-type]
