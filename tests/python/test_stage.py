"""Replicas: that they are whole and right or not there, whatever happens to who makes them, and
what is read for them. Real processes, files and mounts.
"""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    MIB,
    MakeMount,
    eventually,
    finish,
    make_cold,
    run_python,
    start_python,
    write_file,
)
from replica_support import SHARDS, check_same, make_model, place, staged_bytes, visible

import shardahead
from shardahead.checkpoint.shards import resolve_shards
from shardahead.replica import replica_folder, whole_replica
from shardahead.replica.original import look_at
from shardahead.replica.replica_folder import place_of
from shardahead.replica.replica_lock import take_lock
from shardahead.replica.whole_replica import ReplicaError

STAGE = """
import json, sys, shardahead
replica = shardahead.stage(sys.argv[1], sys.argv[2])
print(json.dumps([replica.path, replica.size_bytes]))
"""


def _has_staged(local: Path, count: int) -> bool:
    return staged_bytes(local) > count


# ---- whole ----


def test_a_replica_is_the_checkpoint_byte_for_byte(model: Path, local: Path) -> None:
    told: list[int] = []
    replica = shardahead.stage(model, local, progress=lambda p: told.append(p.done_bytes))
    assert replica.path == str(local / "model")
    assert replica.source == str(model)
    assert replica.size_bytes == sum(SHARDS) == told[-1]
    check_same(model, replica.path)
    assert not os.path.exists(place(local).staging)
    assert shardahead.replica_of(model, local) == replica


def test_what_is_whole_is_read_no_more(model: Path, local: Path, make_mount: MakeMount) -> None:
    mount = make_mount(model.parent)
    source = mount.mountpoint / "model"
    first = shardahead.stage(source, local)
    assert sum(SHARDS) <= mount.counters().bytes_served <= 1.02 * sum(SHARDS) + MIB
    shards = sorted(source.glob("*.safetensors"))
    make_cold(*shards)
    before = mount.counters().bytes_served
    again = shardahead.stage(source, local)
    # Their first and last bytes, with what the kernel reads ahead of these.
    assert mount.counters().bytes_served - before < len(shards) * MIB
    assert again == first


@pytest.mark.parametrize("named", ["index", "shards", "shard"])
def test_whatever_names_the_checkpoint(model: Path, local: Path, named: str) -> None:
    shards = sorted(model.glob("*.safetensors"))
    files: Any = {
        "index": model / "model.safetensors.index.json",
        "shards": list(reversed(shards)),
        "shard": shards[0],
    }[named]
    replica = shardahead.stage(files, local)
    wanted = shards[:1] if named == "shard" else shards
    assert sorted(file.name for file in replica.files) == [path.name for path in wanted]
    assert (Path(replica.path) / "config.json").exists()
    if named != "shard":
        assert shardahead.replica_of(model, local) == replica


def test_a_pipeline_keeps_its_folders(tmp_path: Path, local: Path) -> None:
    pipeline = tmp_path / "source" / "pipeline"
    shards = [
        write_file(pipeline / part / "diffusion_pytorch_model.safetensors", MIB)
        for part in ("unet", "vae")
    ]
    (pipeline / "tokenizer").mkdir()
    (pipeline / "tokenizer" / "vocab.txt").write_text("a")
    (pipeline / "model_index.json").write_text("{}")
    replica = shardahead.stage(shards, local)
    assert replica.path == str(local / "pipeline")
    for name in ("unet/diffusion_pytorch_model.safetensors", "tokenizer/vocab.txt"):
        assert filecmp.cmp(pipeline / name, Path(replica.path) / name, shallow=False)


def test_a_lone_shard_brings_nothing_of_its_folder_along(tmp_path: Path, local: Path) -> None:
    shard = write_file(tmp_path / "models" / "a.gguf", MIB)
    (tmp_path / "models" / "notes.json").write_text("{}")
    assert visible(shardahead.stage(shard, local).path) == ["a.gguf"]


def test_two_checkpoints_of_one_name_get_two_replicas(tmp_path: Path, local: Path) -> None:
    models = [make_model(tmp_path / where / "model", (MIB + i,)) for i, where in enumerate("ab")]
    replicas = [shardahead.stage(model, local) for model in models]
    assert replicas[0].path != replicas[1].path
    for model, replica in zip(models, replicas, strict=True):
        check_same(model, replica.path)
        assert shardahead.replica_of(model, local) == replica


def test_a_mount_that_keeps_no_pages_is_staged_too(
    model: Path, local: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(model.parent, direct_io=True)
    check_same(model, shardahead.stage(mount.mountpoint / "model", local).path)


# ---- another version ----


@pytest.mark.parametrize("change", ["size", "time", "head", "name"])
def test_a_checkpoint_that_has_changed_is_staged_anew(
    model: Path, local: Path, change: str
) -> None:
    before = shardahead.stage(model, local)
    shard = sorted(model.glob("*.safetensors"))[2]
    status = shard.stat()
    if change == "size":
        shard.write_bytes(shard.read_bytes() + b"x")
    elif change == "time":
        os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    elif change == "head":
        content = bytearray(shard.read_bytes())
        content[100] ^= 1
        shard.write_bytes(content)
        os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        shutil.rmtree(model)
        make_model(model, SHARDS[:3])
    assert shardahead.replica_of(model, local) is None
    after = shardahead.stage(model, local)
    assert after.path == before.path
    check_same(model, after.path)
    assert visible(local) == ["model"]


def test_a_checkpoint_that_changes_meanwhile_is_not_mixed(
    model: Path, local: Path, make_mount: MakeMount
) -> None:
    shards = sorted(model.glob("*.safetensors"))
    mount = make_mount(model.parent, rate_mb_per_s=60)
    run = start_python(STAGE, mount.mountpoint / "model", local)
    eventually(lambda: staged_bytes(local) > 8 * MIB, "nothing is staged")
    shards[0].write_bytes(bytes(SHARDS[0]))
    done = finish(run)
    assert done.returncode == 1
    assert "replaced" in done.stderr or "shorter" in done.stderr
    assert visible(local) == []


def test_what_lies_beside_the_shards_is_renewed_without_them(model: Path, local: Path) -> None:
    first = shardahead.stage(model, local)
    copied = os.stat(first.paths[0]).st_ino
    (model / "config.json").write_text('{"new": 1}')
    (model / "added.json").write_text("{}")
    assert shardahead.replica_of(model, local) == first
    again = shardahead.stage(model, local)
    check_same(model, again.path)
    assert os.stat(again.paths[0]).st_ino == copied


# ---- a maker that dies, and others beside it ----


def test_a_killed_one_is_continued_and_reads_the_rest_alone(
    model: Path, local: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(model.parent, rate_mb_per_s=60)
    source = mount.mountpoint / "model"
    for _ in range(3):
        there = staged_bytes(local)
        run = start_python(STAGE, source, local)
        eventually(partial(_has_staged, local, there + 5 * MIB), "nothing more is staged")
        run.kill()
        finish(run)
        assert visible(local) == []
        assert shardahead.replica_of(source, local) is None
        make_cold(*source.glob("*.safetensors"))
    path, _ = run_python(STAGE, source, local)
    # Each kill costs what was on its way: up to 16 MiB a copy, and the window of the climb.
    assert mount.counters().bytes_served < sum(SHARDS) + 3 * 48 * MIB
    check_same(model, path)


def test_what_a_crash_of_the_machine_may_have_taken_is_copied_again(
    model: Path, local: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(model.parent, rate_mb_per_s=60)
    run = start_python(STAGE, mount.mountpoint / "model", local)
    eventually(lambda: staged_bytes(local) > 20 * MIB, "nothing is staged")
    run.kill()
    finish(run)
    blocks = Path(place(local).staging) / ".shardahead-blocks"
    content = bytearray(blocks.read_bytes())
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().encode()
    assert boot in content[:4096]
    blocks.write_bytes(content.replace(boot, b"0" * len(boot)))
    for path in Path(place(local).staging).glob("*.safetensors"):  # what was not on the disk
        path.write_bytes(bytes(path.stat().st_size))
    check_same(model, shardahead.stage(model, local).path)


def test_one_that_died_when_all_was_copied_is_only_named(
    model: Path, local: Path, make_mount: MakeMount, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = make_mount(model.parent)
    source = mount.mountpoint / "model"

    def dies(_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr("shardahead.replica.replica_folder.publish", dies)
        shardahead.stage(source, local)
    assert visible(local) == []
    make_cold(*source.glob("*.safetensors"))
    before = mount.counters().bytes_served
    replica = shardahead.stage(source, local)
    assert mount.counters().bytes_served - before < 4 * MIB
    check_same(model, replica.path)
    assert ".shardahead-blocks" not in os.listdir(replica.path)


def test_several_processes_make_one_and_read_it_once(
    model: Path, local: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(model.parent, rate_mb_per_s=200)
    source = mount.mountpoint / "model"
    runs = [start_python(STAGE, source, local) for _ in range(4)]
    found = {finish(run).stdout for run in runs}
    assert len(found) == 1
    assert mount.counters().bytes_served <= 1.02 * sum(SHARDS) + MIB
    check_same(model, str(local / "model"))


def test_a_replica_says_whose_it_is_before_it_has_its_place(
    model: Path, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever looks in between would take the name for that of another checkpoint."""
    original = look_at(resolve_shards(model))
    seen: list[str] = []
    write = whole_replica.write_source

    def looked_at(*words: str) -> None:
        seen.append(place_of(original, str(local)).name)
        write(*words)
        seen.append(place_of(original, str(local)).name)

    monkeypatch.setattr(whole_replica, "write_source", looked_at)
    shardahead.stage(model, local)
    assert seen == ["model", "model"]


def test_whoever_waits_takes_over_from_one_that_is_killed(
    model: Path, local: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(model.parent, rate_mb_per_s=40)
    source = mount.mountpoint / "model"
    first = start_python(STAGE, source, local)
    eventually(lambda: staged_bytes(local) > 4 * MIB, "nothing is staged")
    second = start_python(STAGE, source, local)
    first.send_signal(signal.SIGKILL)
    finish(first)
    assert finish(second).returncode == 0
    check_same(model, str(local / "model"))


def test_a_forked_child_has_no_lock_of_its_parents(local: Path) -> None:
    path = str(local / ".model.lock")
    lock = take_lock(path)
    assert lock is not None
    assert take_lock(path) is None  # also of this process
    child = os.fork()
    if child == 0:
        status = 1
        try:
            lock.release()  # not its own
            status = 0 if take_lock(path) is None else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    taken = "from shardahead.replica.replica_lock import take_lock; import sys, json\n"
    taken += "print(json.dumps(take_lock(sys.argv[1]) is None))"
    assert run_python(taken, path) is True
    lock.release()
    assert run_python(taken, path) is False


# ---- what cannot be ----


def test_without_room_nothing_is_begun(
    model: Path, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDAHEAD_MEMORY_BUDGET_BYTES", "1MiB")
    monkeypatch.setattr("shardahead.replica.room.lies_in_memory", lambda _: True)
    with pytest.raises(OSError, match=r"57.0 MiB are needed and 1.00 MiB are free in memory") as e:
        shardahead.stage(model, local)
    assert e.value.errno == errno.ENOSPC
    assert visible(local) == []
    assert staged_bytes(local) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_a_disk_that_is_full_in_the_middle_is_given_back(
    model: Path, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardahead.replica.staging.require_room", lambda *_: None)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=30m", "none", local], check=True, capture_output=True
    )
    try:
        with pytest.raises(OSError, match="No space left") as caught:
            shardahead.stage(model, local)
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename.startswith(place(local).staging)
        assert os.statvfs(local).f_bavail * os.statvfs(local).f_frsize > 29 * MIB
    finally:
        subprocess.run(["umount", "-l", local], check=True)


def test_what_is_no_replica_is_left_alone(model: Path, local: Path) -> None:
    mine = local / "model"
    mine.mkdir()
    (mine / "config.json").write_text("mine")
    replica = shardahead.stage(model, local)
    assert replica.path != str(mine)
    assert visible(mine) == ["config.json"]
    with pytest.raises(ReplicaError, match="no replica"):
        replica_folder.remove(place(local))


def test_a_shard_that_cannot_be_read_is_named_and_the_rest_is_kept(
    model: Path, local: Path, make_mount: MakeMount
) -> None:
    bad = sorted(model.glob("*.safetensors"))[0].name
    mount = make_mount(model.parent)
    mount.bad(f"model/{bad}", 20 * MIB, 1)
    with pytest.raises(OSError, match="Input/output error") as caught:
        shardahead.stage(mount.mountpoint / "model", local)
    assert caught.value.errno == errno.EIO
    assert os.path.basename(caught.value.filename) == bad
    assert visible(local) == []
    assert staged_bytes(local) > 16 * MIB
    mount.clear()
    check_same(model, shardahead.stage(mount.mountpoint / "model", local).path)


@pytest.mark.parametrize("wrong", ["missing", "file"])
def test_a_folder_that_is_none_is_said_at_once(model: Path, tmp_path: Path, wrong: str) -> None:
    folder = tmp_path / wrong
    if wrong == "file":
        folder.write_text("")
    with pytest.raises(FileNotFoundError if wrong == "missing" else NotADirectoryError):
        shardahead.stage(model, folder)
