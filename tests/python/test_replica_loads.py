"""Loads with `replica=`: the same tensors from a replica, or beside one that is made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, MakeMount, eventually, finish, run_ranks, start_python
from replica_support import visible

import shardahead

LOAD = """
import hashlib, json, sys, time
import shardahead
weights = shardahead.safetensors_weights_iterator(sys.argv[1], replica=sys.argv[2])
found = hashlib.sha256()
for name, tensor in weights:
    found.update(name.encode())
    found.update(memoryview(tensor.numpy()))
time.sleep(float(sys.argv[3]))
print(json.dumps(found.hexdigest()))
"""


def contents(files: Any, **options: Any) -> dict[str, bytes]:
    return {
        name: tensor.numpy().tobytes()
        for name, tensor in shardahead.safetensors_weights_iterator(files, **options)
    }


@pytest.mark.parametrize("mode", ["mmap", "pread"])
def test_the_first_load_leaves_a_replica_and_the_next_reads_it(
    numbered: Path, local: Path, make_mount: MakeMount, mode: Any
) -> None:
    expected = contents(numbered)
    mount = make_mount(numbered)
    assert contents(mount.mountpoint, replica=local, mode=mode) == expected
    eventually(lambda: visible(local) == [mount.mountpoint.name], "no replica is made")
    mount.evict_all()
    mount.reset()
    assert contents(mount.mountpoint, replica=local, mode=mode) == expected
    served = mount.counters().bytes_served
    assert served < 3 * MIB  # of 24: what shards begin and end with
    for shard in numbered.glob("*.safetensors"):
        mount.bad(shard.name, 2 * MIB, MIB)
    mount.evict_all()
    assert contents(mount.mountpoint, replica=local, mode=mode) == expected


def test_ranks_that_load_and_stage_read_the_storage_once(
    numbered: Path, local: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(numbered, rate_mb_per_s=100)
    found = run_ranks(LOAD, 4, mount.mountpoint, local, "0")
    assert len(set(found)) == 1
    eventually(lambda: mount.counters().in_flight == 0, "reads go on")
    assert mount.counters().bytes_served <= 1.02 * 24 * MIB + MIB


def test_what_a_load_began_the_next_goes_on_with(
    numbered: Path, local: Path, make_mount: MakeMount
) -> None:
    mount = make_mount(numbered, rate_mb_per_s=20)
    load = start_python(LOAD, mount.mountpoint, local, "0")
    eventually(
        lambda: sum(p.stat().st_blocks for p in local.rglob("*.safetensors")) * 512 > 4 * MIB,
        "nothing is staged",
    )
    load.kill()
    finish(load)
    assert visible(local) == []
    finish(start_python(LOAD, mount.mountpoint, local, "5"))
    assert visible(local) == [mount.mountpoint.name]


def test_a_forked_loader_and_the_switch(
    numbered: Path, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = contents(numbered)
    monkeypatch.setenv("SHARDAHEAD_DISABLE", "1")
    assert contents(numbered, replica=local) == expected
    assert os.listdir(local) == []
    monkeypatch.delenv("SHARDAHEAD_DISABLE")
    monkeypatch.setenv("SHARDAHEAD_REPLICA_FOLDER", str(local))
    assert contents(numbered, prefetch=False) == expected
    assert os.listdir(local) == []
    assert contents(numbered) == expected
    eventually(lambda: visible(local) == ["source"], "no replica is made")


@pytest.mark.parametrize("wrong", ["missing", "file", "full"])
def test_what_goes_wrong_with_a_replica_is_said_and_fails_no_load(
    numbered: Path,
    tmp_path: Path,
    wrong: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / wrong
    if wrong == "file":
        folder.write_text("")
    elif wrong == "full":
        folder.mkdir()
        monkeypatch.setenv("SHARDAHEAD_MEMORY_BUDGET_BYTES", "100MiB")
        monkeypatch.setattr("shardahead.replica.room.lies_in_memory", lambda _: True)
        monkeypatch.setattr("shardahead.replica.room._RESERVE_BYTES", 1 << 40)
    expected = contents(numbered)
    caplog.clear()
    for _ in range(2):
        assert contents(numbered, replica=folder) == expected

    def said() -> list[str]:
        found = [record.getMessage() for record in caplog.records]
        return [text for text in found if "the load goes on without" in text]

    eventually(said, "nothing is said")
    assert len(said()) == 1
    assert str(folder) in said()[0]


def test_with_names_slices_and_learning_it_is_the_same(numbered: Path, local: Path) -> None:
    shardahead.stage(numbered, local)
    asked: dict[str, Any] = {
        "names": ["0.1", "2.7"],
        "slices": {"2.7": (0, 100, MIB - 3)},
    }
    assert contents(numbered, replica=local, **asked) == contents(numbered, **asked)
