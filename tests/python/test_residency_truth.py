"""Residency where the kernel's answer is easily taken for another: in user namespaces, under
read-only mounts, on overlays, after a mount of the same number, and of pages whose read failed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    MIB,
    PAGE_BYTES,
    MakeMount,
    make_cold,
    resident_bytes,
    run_python,
    write_file,
)
from kernel_support import IN_USER_NAMESPACE, OWNER, STRANGER, command, mounted
from test_cli import run

from shardahead import evict, mount_of, residency

SIZE_BYTES = 4 * MIB + 123
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

ASK = IN_USER_NAMESPACE + (
    "import dataclasses, json\n"
    "print(json.dumps([dataclasses.asdict(file) for file in shardahead.residency(sys.argv[1])]))\n"
)
WARM = (
    IN_USER_NAMESPACE + "sys.exit(shardahead.command.cli.main(['warm', '--json', sys.argv[1]]))\n"
)
LOOK = (
    IN_USER_NAMESPACE + "sys.exit(shardahead.command.cli.main(['doctor', '--json', sys.argv[1]]))\n"
)


@pytest.fixture
def mounts() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def in_user_namespace(script: str, path: Path, user: int) -> Any:
    found = run_python(script, path, env={"USER_ID": str(user)})
    if found is None:
        pytest.skip("user namespaces are not allowed here")
    return found


def owned_by(path: Path, user: int) -> Path:
    path.chmod(0o644)
    os.chown(path, user, user)
    return path


# ---- owners that are shown as the overflow uid ----


@as_root
def test_an_owner_who_is_not_shown_proves_nothing(open_folder: Path) -> None:
    path = owned_by(write_file(open_folder / "a.safetensors", SIZE_BYTES), OWNER)
    make_cold(path)
    (found,) = in_user_namespace(ASK, path, STRANGER)
    assert found["resident_bytes"] in (None, 0)  # 0: a kernel whose cachestat answers all
    assert found["resident_bytes"] == 0 or "owner" in found["reason"]


@as_root
def test_the_true_owner_is_told_though_not_shown(open_folder: Path) -> None:
    path = owned_by(write_file(open_folder / "a.safetensors", SIZE_BYTES), OWNER)
    make_cold(path)
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), 1, MIB)
    (found,) = in_user_namespace(ASK, path, OWNER)
    assert (found["resident_bytes"], found["pending_bytes"]) == (PAGE_BYTES, 0)


@as_root
def test_warm_reads_where_residency_is_not_told(open_folder: Path) -> None:
    path = owned_by(write_file(open_folder / "a.safetensors", SIZE_BYTES), OWNER)
    make_cold(path)
    found = in_user_namespace(WARM, path, STRANGER)
    assert (found["resident_bytes"], found["read_bytes"]) == (0, SIZE_BYTES)
    assert resident_bytes(path) == SIZE_BYTES


@as_root
def test_doctor_does_not_send_to_an_owner_who_is_not_shown(open_folder: Path) -> None:
    path = owned_by(write_file(open_folder / "a.safetensors", SIZE_BYTES), OWNER)
    found = in_user_namespace(LOOK, path, STRANGER)
    ((owner, _),) = found["mounts"][0]["owners"]
    assert "user namespace" in owner
    assert not any("sudo" in line for advice in found["advice"] for line in advice["commands"])


# ---- mounts ----


def overlay(stack: ExitStack, point: Path) -> Path:
    """Of the folder `lower` beside it, and of an empty one, without an upper layer."""
    (point.parent / "empty").mkdir()
    layers = f"lowerdir={point.parent}/lower:{point.parent}/empty"
    return mounted(stack, point, "-t", "overlay", "-o", layers, "none")


@as_root
def test_a_read_only_mount_does_not_make_root_a_stranger(tmp_path: Path, mounts: ExitStack) -> None:
    path = owned_by(write_file(tmp_path / "source" / "a", SIZE_BYTES), OWNER)
    shown = mounted(mounts, tmp_path / "shown", "--bind", path.parent)
    command("mount", "-o", "remount,bind,ro", shown)
    path.read_bytes()
    (found,) = residency(shown / "a")
    assert (found.resident_bytes, found.pending_bytes) == (SIZE_BYTES, 0)


@as_root
@pytest.mark.parametrize("read", [0, SIZE_BYTES])
def test_an_overlay_without_an_upper_layer(tmp_path: Path, mounts: ExitStack, read: int) -> None:
    path = owned_by(write_file(tmp_path / "lower" / "a", SIZE_BYTES), OWNER)
    shown = overlay(mounts, tmp_path / "shown")
    make_cold(path)
    if read:
        path.read_bytes()
    (found,) = residency(shown / "a")
    assert (found.resident_bytes, found.source) == (read, "mincore")


@as_root
def test_a_mount_that_has_the_number_of_one_that_is_gone(tmp_path: Path, mounts: ExitStack) -> None:
    path = write_file(tmp_path / "lower" / "a", SIZE_BYTES)
    gone = [mounted(mounts, tmp_path / f"{i}", "--bind", path.parent) for i in range(6)]
    numbers = set()
    for point in gone:  # several, because an overlay takes a number for each of its layers, too
        assert residency(point / "a")[0].resident_bytes == SIZE_BYTES
        numbers.add(mount_of(point).id)
    for point in gone:
        command("umount", point)
    shown = overlay(mounts, tmp_path / "shown")
    if mount_of(shown).id not in numbers:
        pytest.skip("the kernel gave the mount another number")
    path.read_bytes()
    assert residency(shown / "a")[0].resident_bytes == SIZE_BYTES


@as_root
def test_an_overlay_that_is_in_no_table(tmp_path: Path, mounts: ExitStack) -> None:
    """Detached, and reached through a descriptor, as those of other mount namespaces are."""
    path = write_file(tmp_path / "lower" / "a", SIZE_BYTES)
    shown = overlay(mounts, tmp_path / "shown")
    folder = os.open(shown, os.O_PATH | os.O_DIRECTORY)
    try:
        command("umount", "-l", shown)
        inside = Path(f"/proc/self/fd/{folder}/a")
        path.read_bytes()
        assert residency([inside])[0].resident_bytes == SIZE_BYTES
    finally:
        os.close(folder)


@as_root
def test_doctor_finds_nothing_wrong_with_an_overlay(tmp_path: Path, mounts: ExitStack) -> None:
    write_file(tmp_path / "lower" / "a.safetensors", SIZE_BYTES)
    shown = overlay(mounts, tmp_path / "shown")
    page = " ".join(run("doctor", shown).stdout.split())
    assert "of an overlay cachestat tells nothing" in page
    assert "cachestat(2)" not in page


# ---- pages that are there and cannot be used ----


def bring_in(path: Path) -> None:
    """Advises all of it, and reads nothing."""
    descriptor = os.open(path, os.O_RDONLY)
    for at in range(0, os.fstat(descriptor).st_size, 128 * 1024):
        os.posix_fadvise(descriptor, at, 128 * 1024, os.POSIX_FADV_WILLNEED)
    os.close(descriptor)


def test_what_could_not_be_read_is_not_resident(tmp_path: Path, make_mount: MakeMount) -> None:
    write_file(tmp_path / "source" / "a.safetensors", SIZE_BYTES)
    mount = make_mount(tmp_path / "source")
    path = mount.mountpoint / "a.safetensors"
    mount.bad(path.name, 0, SIZE_BYTES)
    bring_in(path)
    mount.wait_until_idle()
    assert resident_bytes(path) > 0  # as cachestat says
    (found,) = residency(path)
    assert (found.resident_bytes, found.source) == (0, "mincore")
    assert found.pending_bytes == resident_bytes(path)
    document = json.loads(run("status", "--json", path).stdout)
    assert (document["resident_bytes"], document["files"][0]["pending_bytes"]) == (
        0,
        resident_bytes(path),
    )
    assert "could not be read" in run("status", path).stdout
    (left,) = evict(path)
    assert (left.resident_bytes, left.pending_bytes, resident_bytes(path)) == (0, 0, 0)


def test_doctor_does_not_call_resident_what_could_not_be_read(
    tmp_path: Path, make_mount: MakeMount
) -> None:
    write_file(tmp_path / "source" / "a.safetensors", 64 * PAGE_BYTES)
    mount = make_mount(tmp_path / "source")
    path = mount.mountpoint / "a.safetensors"
    mount.bad(path.name, 0, 64 * PAGE_BYTES)
    descriptor = os.open(path, os.O_RDONLY)
    for page in range(64):
        with pytest.raises(OSError, match="Input/output error"):
            os.pread(descriptor, PAGE_BYTES, page * PAGE_BYTES)
    os.close(descriptor)
    assert resident_bytes(path) == 64 * PAGE_BYTES  # as cachestat says
    said = " ".join(run("doctor", path).stdout.split())
    assert "0 B resident (mincore); 256 KiB more are being read, or could not be read" in said
    assert "not measured: what is not resident is being read, or could not be read" in said


def test_warm_does_not_take_a_failed_page_for_resident(
    tmp_path: Path, make_mount: MakeMount
) -> None:
    write_file(tmp_path / "source" / "a.safetensors", SIZE_BYTES)
    mount = make_mount(tmp_path / "source")
    path = mount.mountpoint / "a.safetensors"
    mount.bad(path.name, 2 * MIB + 64 * 1024, PAGE_BYTES)
    bring_in(path)
    mount.wait_until_idle()
    done = run("warm", path)
    assert done.returncode == 1
    assert "Input/output error" in done.stderr
    mount.clear()
    assert run("warm", path).returncode == 0
    assert residency(path)[0].resident_bytes == SIZE_BYTES
