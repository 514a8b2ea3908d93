"""One bad page, one bad shard, a file replaced, cut short or deleted, a mount that goes away: right
bytes or an error that says where, and never a signal.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    KIB,
    MIB,
    PAGE_BYTES,
    MakeMount,
    eventually,
    resident_bytes,
    write_file,
)
from fault_support import (
    CHECKED,
    ITERATORS,
    LOADS,
    PROMISED_SECONDS,
    TENSOR_BYTES,
    TENSORS_PER_SHARD,
    data_offset,
    names_before,
    within,
    write_checkpoint,
)
from nursery import Child, Nursery

from shardahead import prefetch_files
from shardahead.prefetch.options import Strategy

LOAD = (
    CHECKED
    + """
make, folder, options = sys.argv[1:4]
options = json.loads(options)
weights = getattr(shardahead, make)(folder, **options)
wait_for = os.environ.get("WAIT_FOR")
if wait_for:
    weights.prefetch.wait()
    print("loading", flush=True)
    while not os.path.exists(wait_for):
        time.sleep(0.01)
found, error = [], None
try:
    for name, tensor in weights:
        assert right(name, tensor), name
        found.append(name)
        if name == os.environ.get("PAUSE_AT"):
            print("paused", flush=True)
            while not os.path.exists(os.environ["GO"]):
                time.sleep(0.01)
except OSError as caught:
    error = [caught.errno, str(caught.filename), getattr(caught, "offset", -1), str(caught)]
    del caught
report = weights.prefetch.report().to_dict() if weights.prefetch else None
print(json.dumps({"found": found, "error": error, "report": report}))
"""
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "source")


# ---- one bad page ----


@pytest.mark.parametrize("strategy", ["auto", "fadvise", "readahead", "pread"])
def test_a_prefetch_finds_a_bad_page_that_it_touches(
    tmp_path: Path, make_mount: MakeMount, strategy: Strategy
) -> None:
    """The last one of a step. Others are found by who uses them: looking at all costs too much."""
    write_file(tmp_path / "source" / "a.bin", 12 * MIB)
    mount = make_mount(tmp_path / "source", readahead_kib=1024)
    path = mount.mountpoint / "a.bin"
    bad = 6 * MIB - PAGE_BYTES
    mount.bad(path, bad, PAGE_BYTES)
    handle = prefetch_files(path, strategy=strategy)
    handle.wait()
    ((named, error),) = handle.errors
    assert (named, error.errno) == (str(path), errno.EIO)
    assert getattr(error, "offset", -1) == bad
    assert not handle.report().complete


@pytest.mark.parametrize(("make", "options"), LOADS)
@pytest.mark.parametrize("prefetched", [True, False], ids=["prefetched", "resident"])
def test_one_bad_page_is_an_error_of_its_tensor_alone(
    nursery: Nursery,
    checkpoint: Path,
    make_mount: MakeMount,
    make: str,
    options: str,
    prefetched: bool,
) -> None:
    """Also where someone else's readahead left it in the page cache, where it counts as resident:
    its use through a mapping would be a SIGBUS.
    """
    mount = make_mount(checkpoint, readahead_kib=1024)
    path = mount.mountpoint / "model-1.safetensors"
    tensor = data_offset(path) + 2 * TENSOR_BYTES
    bad = (tensor + 300 * KIB) // PAGE_BYTES * PAGE_BYTES
    mount.bad(path, bad, PAGE_BYTES)
    if not prefetched:
        descriptor = os.open(path, os.O_RDONLY)
        for at in range(0, path.stat().st_size, 128 * KIB):
            os.posix_fadvise(descriptor, at, 128 * KIB, os.POSIX_FADV_WILLNEED)
        mount.wait_until_idle()
        os.close(descriptor)
        assert resident_bytes(path, bad, PAGE_BYTES) == PAGE_BYTES
    found = nursery.start(LOAD, make, mount.mountpoint, options).result()
    code, filename, offset, text = found["error"]
    assert (code, filename) == (errno.EIO, str(path))
    assert tensor <= offset <= bad
    assert "tensor '1.2'" in text
    assert found["found"] == names_before(1, 2)


def test_the_page_of_another_users_file_is_an_error_too(
    nursery: Nursery, open_folder: Path, make_mount: MakeMount
) -> None:
    """Its residency is told to no one else."""
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    source = write_checkpoint(open_folder / "source")
    for folder in [source, *source.iterdir()]:
        folder.chmod(0o755)
    mount = make_mount(source, mountpoint=open_folder / "mount", readahead_kib=1024)
    path = mount.mountpoint / "model-1.safetensors"
    mount.bad(path, data_offset(path) + 2 * TENSOR_BYTES + 300 * KIB, PAGE_BYTES)
    found = nursery.start("os.setuid(65534)\n" + LOAD, LOADS[0][0], mount.mountpoint, "{}").result()
    assert found["error"][:2] == [errno.EIO, str(path)]
    assert "tensor '1.2'" in found["error"][3]
    assert found["found"] == names_before(1, 2)


@pytest.mark.parametrize(("make", "options"), LOADS)
def test_errors_that_pass_do_not_break_the_load(
    nursery: Nursery,
    checkpoint: Path,
    make_mount: MakeMount,
    tmp_path: Path,
    make: str,
    options: str,
) -> None:
    mount = make_mount(checkpoint, readahead_kib=1024)
    for i in range(3):
        mount.bad(f"model-{i}.safetensors", 2 * MIB + 300 * KIB, MIB)
    go = tmp_path / "go"
    wait = {} if "pread" in options else {"WAIT_FOR": str(go)}
    if not wait:
        mount.clear()  # it reads when it is asked to: what has passed is not seen
    child = nursery.start(LOAD, make, mount.mountpoint, options, env=wait)
    if wait:
        child.wait_until_says("loading")
        mount.clear()
        go.touch()
    found = child.result()
    assert found["error"] is None
    assert found["found"] == names_before(3)
    assert not wait or found["report"]["error_count"] > 0


# ---- files that change under the load ----


def replace(path: Path) -> None:
    """By another one, as a download does: under the same name, with other bytes."""
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    tensors = {
        f"1.{j}": torch.full((TENSOR_BYTES // 8,), -1, dtype=torch.int64)
        for j in range(TENSORS_PER_SHARD)
    }
    # Other places for the same names, too.
    save_file(tensors, path.with_suffix(".new"), metadata={"version": "2" * 1000})
    path.with_suffix(".new").rename(path)


def cut(path: Path) -> None:
    os.truncate(path, data_offset(path) + TENSOR_BYTES // 2)


CHANGES: dict[str, tuple[Callable[[Path], None], set[int]]] = {
    "replaced": (replace, {errno.ESTALE}),
    "cut short": (cut, {errno.ENODATA}),
    "deleted": (Path.unlink, {errno.ENOENT}),
}


@pytest.mark.parametrize(("make", "options"), LOADS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_before_its_turn_gives_its_old_bytes_or_an_error(
    nursery: Nursery, checkpoint: Path, tmp_path: Path, make: str, options: str, change: str
) -> None:
    """LOAD checks every byte: bytes of both versions, or of the new one alone, would end it."""
    go = tmp_path / "go"
    # So little ahead that no tensor of the shard has been made.
    little = {"window_bytes": 64 * KIB, "block_size": 64 * KIB}
    if make == ITERATORS[1]:
        little["max_workers"] = 1
    child = nursery.start(
        LOAD,
        make,
        checkpoint,
        json.dumps({**json.loads(options), **little}),
        env={"PAUSE_AT": "0.1", "GO": str(go)},
    )
    child.wait_until_says("paused")
    make_change, codes = CHANGES[change]
    path = checkpoint / "model-1.safetensors"
    make_change(path)
    go.touch()
    found = child.result()
    if found["error"] is None:
        assert found["found"] == names_before(3)
        return
    code, filename, _, text = found["error"]
    assert code in codes or (code is None and str(path) in text), text
    assert str(path) in (filename, text) or str(path) in text
    assert found["found"] == names_before(1)[: len(found["found"])]


def test_mode_pread_survives_a_file_cut_short_at_any_time(
    nursery: Nursery, checkpoint: Path, tmp_path: Path
) -> None:
    """A mapping does not: there the bytes beyond the new end are a SIGBUS, whoever mapped them."""
    go = tmp_path / "go"
    load = nursery.start(
        LOAD,
        LOADS[2][0],
        checkpoint,
        LOADS[2][1],
        env={"PAUSE_AT": "1.0", "GO": str(go)},
    )
    load.wait_until_says("paused")
    for path in checkpoint.iterdir():
        os.truncate(path, 10)
    go.touch()
    found = load.result()
    # What had been read ahead is right, and the rest an error.
    assert len(found["found"]) >= len(names_before(1, 1))
    assert found["error"] is None or found["error"][0] == errno.ENODATA


# ---- the mount goes away ----


def kill_server(mount: Any) -> None:
    mount._server.kill()
    mount._server.wait()


def unmount_lazily(mount: Any) -> None:
    subprocess.run(["umount", "-l", str(mount.mountpoint)], check=True)


@pytest.mark.parametrize("go_away", [kill_server, unmount_lazily])
def test_a_mount_that_goes_away_in_the_middle(
    nursery: Nursery, checkpoint: Path, make_mount: MakeMount, go_away: Callable[[Any], None]
) -> None:
    if go_away is unmount_lazily and (os.getuid() != 0 or not shutil.which("umount")):
        pytest.skip("only root can unmount")
    mount = make_mount(checkpoint)
    mount.stall("model-1.safetensors", data_offset(checkpoint / "model-1.safetensors"), 3600)
    children: list[Child] = []
    for i, (make, options) in enumerate(LOADS):
        board = {"SHARDAHEAD_BOARD_FOLDER": str(checkpoint.parent / f"board-{i}")}
        Path(board["SHARDAHEAD_BOARD_FOLDER"]).mkdir()
        env = {**board, "PAUSE_AT": "0.3", "GO": "/"}
        children.append(nursery.start(LOAD, make, mount.mountpoint, options, env=env))
    for child in children:
        child.wait_until_says("paused")
    eventually(lambda: mount.counters().in_flight, "nothing stalls")
    go_away(mount)
    if go_away is unmount_lazily:
        # What is open stays: the loads go on for as long as the server does.
        assert not any(child.ended for child in children)
        kill_server(mount)
    assert within(PROMISED_SECONDS, children) == [0] * len(children)
    for child in children:
        found = child.result()
        assert found["error"][0] in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ENOENT)
        assert found["found"] == names_before(1)
    assert signal.SIGBUS not in [-child.status() for child in children]
