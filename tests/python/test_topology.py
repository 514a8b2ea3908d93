"""Local rank and size: arguments, and real process groups of three processes.

The real groups run once, in a child process of their own that is killed if it hangs; the tests
read what its ranks wrote. Nodes are told apart by boot id: a rank is put on another node by
letting it read another file for the boot id.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import step

from shardahead.node import topology
from shardahead.node.launcher import LocalTopology
from shardahead.node.topology import local_topology

HANG_SECONDS = 120


pytestmark = pytest.mark.usefixtures("alone")


# ---- arguments ----


def test_nothing_known() -> None:
    assert local_topology(environ={}) == LocalTopology(0, 1, "default")


def test_arguments_come_first() -> None:
    environ = {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    expected = LocalTopology(3, 8, "argument")
    assert local_topology(local_rank=3, local_size=8, environ=environ) == expected
    assert local_topology(object(), local_rank=3, local_size=8) == expected
    assert local_topology(local_size=1, environ=environ) == LocalTopology(0, 1, "argument")


def test_what_behaves_as_an_integer_is_one() -> None:
    class Three:
        def __index__(self) -> int:
            return 3

    found = local_topology(local_rank=Three(), local_size=4)  # type: ignore[arg-type]
    assert type(found.rank) is int
    assert found.rank == 3


@pytest.mark.parametrize(
    ("rank", "size", "error", "message"),
    [
        (0, None, ValueError, "local_size is missing"),
        (None, 4, ValueError, "local_rank is missing"),
        (None, 0, ValueError, "local_rank is missing"),
        (0, 0, ValueError, "local_size must be at least 1, not 0"),
        (0, -1, ValueError, "local_size must be at least 1, not -1"),
        (4, 4, ValueError, "local_rank must be from 0 to local_size - 1 = 3, not 4"),
        (-1, 4, ValueError, "local_rank must be from 0 .* not -1"),
        (True, 4, TypeError, "local_rank must be an integer, not True"),
        (0, True, TypeError, "local_size must be an integer, not True"),
        (0.0, 4, TypeError, "local_rank must be an integer, not 0.0"),
        ("0", 4, TypeError, "local_rank must be an integer, not '0'"),
    ],
)
def test_wrong_arguments(rank: Any, size: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        local_topology(local_rank=rank, local_size=size, environ={})


# ---- torch.distributed, as far as it can be had without torch ----


class Store:
    """A store in this process, with the answers of the other ranks."""

    def __init__(self, **entries: str) -> None:
        prefix = topology.STORE_KEY_PREFIX
        self.entries = {prefix + name[1:]: value.encode() for name, value in entries.items()}
        self.sets = 0

    def set(self, key: str, value: str) -> None:
        self.sets += 1
        self.entries[key] = value.encode()

    def check(self, keys: list[str]) -> bool:
        return all(key in self.entries for key in keys)

    def get(self, key: str) -> bytes:
        return self.entries[key]  # KeyError where a real store would wait for minutes


def pretend_torch(
    monkeypatch: pytest.MonkeyPatch, store: object, rank: int = 1, size: int = 3
) -> None:
    dist = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        get_rank=lambda: rank,
        get_world_size=lambda: size,
    )
    c10d = SimpleNamespace(_get_default_store=lambda: store)
    monkeypatch.setattr(topology, "STORE_STUCK_SECONDS", HANG_SECONDS)
    monkeypatch.setitem(sys.modules, "torch.distributed", dist)
    monkeypatch.setitem(sys.modules, "torch.distributed.distributed_c10d", c10d)


@pytest.fixture
def boot_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    (tmp_path / "boot_id").write_text("abc\n")
    monkeypatch.setattr(topology, "BOOT_ID_PATH", str(tmp_path / "boot_id"))
    return "boot abc"


@pytest.mark.usefixtures("boot_id")
def test_the_store_tells_the_nodes_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(r0="3 boot abc", r2="3 boot other")
    pretend_torch(monkeypatch, store)
    for _ in range(3):
        assert local_topology(environ={}) == LocalTopology(1, 2, "torch.distributed (store)")
    assert store.entries[topology.STORE_KEY_PREFIX + "1"] == b"3 boot abc"
    assert store.sets == 1


@pytest.mark.usefixtures("boot_id")
def test_a_launcher_of_one_process_asks_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_torch(monkeypatch, Store(r0="3 boot abc", r2="3 boot abc"))
    environ = step(SLURM_LOCALID="0", SLURM_GTIDS="0")
    assert local_topology(environ=environ) == LocalTopology(1, 3, "torch.distributed (store)")
    environ = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    assert local_topology(environ=environ).source == "LOCAL_RANK and LOCAL_WORLD_SIZE"


@pytest.mark.usefixtures("boot_id")
@pytest.mark.parametrize("left", ["4 boot abc", "boot abc", "", "3"])
def test_what_another_process_group_left_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    monkeypatch.setattr(topology, "STORE_WAIT_SECONDS", 0.02)
    store = Store(r0="3 boot abc", r1="4 boot abc", r2=left)
    pretend_torch(monkeypatch, store)
    found = local_topology(environ={})
    if left == "3":  # of the right size, and on no node of ours
        assert (found.rank, found.size) == (1, 2)
    else:
        text = "default: 2 of 3 ranks answered on torch.distributed's store within 0.02 s"
        assert found == LocalTopology(0, 1, text)
    store.set(topology.STORE_KEY_PREFIX + "2", "3 boot abc")
    assert local_topology(environ={}) == LocalTopology(1, 3, "torch.distributed (store)")


@pytest.mark.usefixtures("boot_id")
def test_a_store_that_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    class StuckStore(Store):
        def check(self, keys: list[str]) -> bool:
            assert release.wait(HANG_SECONDS)
            return super().check(keys)

    pretend_torch(monkeypatch, StuckStore(r0="3 boot abc", r2="3 boot abc"))
    monkeypatch.setattr(topology, "STORE_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(topology, "STORE_STUCK_SECONDS", 0.01)
    found = local_topology(environ={})
    release.set()
    assert found == LocalTopology(0, 1, "default: torch.distributed's store does not respond")


@pytest.mark.usefixtures("boot_id")
def test_a_store_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class FailingStore(Store):
        def set(self, key: str, value: str) -> None:
            raise RuntimeError(f"connection reset: {key} {value}")

    pretend_torch(monkeypatch, FailingStore())
    found = local_topology(environ={})
    assert (found.rank, found.size) == (0, 1)
    assert found.source.startswith("default: torch.distributed's store failed: RuntimeError(")


def test_other_states_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_torch(monkeypatch, None)
    expected = LocalTopology(0, 1, "default: torch.distributed has no store")
    assert local_topology(environ={}) == expected
    pretend_torch(monkeypatch, None, rank=0, size=1)
    assert local_topology(environ={}) == LocalTopology(0, 1, "torch.distributed (one rank)")
    pretend_torch(monkeypatch, None, size=topology.STORE_MAX_RANKS + 1)
    assert "too many" in local_topology(environ={}).source
    pretend_torch(monkeypatch, None)
    monkeypatch.setitem(sys.modules, "torch.distributed.distributed_c10d", SimpleNamespace())
    assert "store failed: AttributeError" in local_topology(environ={}).source
    not_ready = {"is_available": lambda: True, "is_initialized": lambda: False}
    for attributes in ({}, {"is_available": lambda: False}, not_ready):
        monkeypatch.setitem(sys.modules, "torch.distributed", SimpleNamespace(**attributes))
        assert local_topology(environ={}) == LocalTopology(0, 1, "default")
        with pytest.raises(RuntimeError, match="not initialized"):
            local_topology(object(), environ={})


def test_without_a_boot_id_the_host_name_names_the_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    monkeypatch.setattr(socket, "gethostname", lambda: "here")
    for name in ("missing", "empty", "binary"):
        monkeypatch.setattr(topology, "BOOT_ID_PATH", str(tmp_path / name))
        pretend_torch(monkeypatch, Store(r0="3 host here", r2="3 boot abc"))
        found = local_topology(environ={})
        assert (found.rank, found.size) == (1, 2)
        assert found.source == "torch.distributed (store, node by host name: no boot id)"


def test_torch_is_not_imported() -> None:
    code = (
        "import sys; from shardahead.node.topology import local_topology; "
        "local_topology(environ={}); "
        "sys.exit(any(name.split('.')[0] == 'torch' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=HANG_SECONDS).returncode == 0


# ---- torch.distributed, for real ----

# torch is imported once, and the three ranks are forked from there: an import takes seconds.
THREE_RANKS = r"""
import dataclasses, json, logging, logging.handlers, multiprocessing, os, sys, time
import torch.distributed as dist
from shardahead.node import launcher
from shardahead.node import topology
from shardahead.node.topology import local_topology

folder, kind = sys.argv[1:]
PAUSE_SECONDS = 0.01

def make_store(rank):
    if kind == "file":
        return dist.FileStore(f"{folder}/store", 3)
    port_path = f"{folder}/port"
    if rank == 0:
        store = dist.TCPStore("127.0.0.1", 0, 3, True, wait_for_workers=False)
        with open(port_path + ".new", "w") as file:
            file.write(str(store.port))
        os.rename(port_path + ".new", port_path)
        return store
    while not os.path.exists(port_path):
        time.sleep(PAUSE_SECONDS)
    with open(port_path) as file:
        return dist.TCPStore("127.0.0.1", int(file.read()), 3, False)

def main(rank):
    topology.BOOT_ID_PATH = f"{folder}/node{0 if rank == 1 else 1}"  # ranks 0 and 2 share a node
    topology.STORE_WAIT_SECONDS = 0.3
    topology.STORE_STUCK_SECONDS = 60.0
    dist.init_process_group("gloo", store=make_store(rank), rank=rank, world_size=3)
    found = {}
    if rank == 0:
        found["alone"] = local_topology(environ={})
        found["alone again"] = local_topology(environ={})
    dist.barrier()
    topology.STORE_WAIT_SECONDS = 60.0
    said = logging.handlers.BufferingHandler(100)
    logging.getLogger("shardahead").addHandler(said)
    alone = {"LOCAL_WORLD_SIZE": "3", "SHARDAHEAD_LOCAL_RANK": "0"}
    if rank != 0:
        found["store"] = local_topology(environ=alone)
    dist.barrier()
    if rank == 0:
        found["store"] = local_topology(environ=alone)
    found["said"] = [record.getMessage() for record in said.buffer]
    found["launcher"] = local_topology(environ={"LOCAL_RANK": "5", "LOCAL_WORLD_SIZE": "6"})
    environ = {"LOCAL_RANK": "5", "LOCAL_WORLD_SIZE": "6"}
    found["group"] = local_topology(dist.group.WORLD, environ=environ)
    found["argument"] = local_topology(dist.group.WORLD, local_rank=7, local_size=8)
    part = dist.new_group([2, 0])
    if rank != 1:
        found["part"] = local_topology(part, environ={})
    else:
        try:
            local_topology(part, environ={})
        except ValueError as error:
            found["part"] = str(error)
    with open(f"{folder}/result{rank}", "w") as file:
        json.dump(found, file, default=dataclasses.asdict)
    dist.barrier()
    dist.destroy_process_group()
    assert local_topology(environ={}).source == "default"

context = multiprocessing.get_context("fork")
ranks = [context.Process(target=main, args=(rank,)) for rank in range(3)]
for process in ranks:
    process.start()
for process in ranks:
    process.join()
sys.exit(any(process.exitcode for process in ranks))
"""


@pytest.fixture(scope="module", params=["tcp", "file"])
def three_ranks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """What local_topology() returned in each of three ranks, of which 0 and 2 share a node."""
    pytest.importorskip("torch.distributed")
    folder = tmp_path_factory.mktemp("ranks")
    for node in (0, 1):
        (folder / f"node{node}").write_text(f"boot-id-{node}\n")
    command = [sys.executable, "-c", THREE_RANKS, str(folder), request.param]
    subprocess.run(command, timeout=HANG_SECONDS, check=True)
    return [json.loads((folder / f"result{rank}").read_text()) for rank in range(3)]


def as_dict(rank: int, size: int, source: str) -> dict[str, Any]:
    return {"rank": rank, "size": size, "source": source}


def test_rank_0_alone_does_not_hang(three_ranks: list[dict[str, Any]]) -> None:
    text = "default: 1 of 3 ranks answered on torch.distributed's store within 0.3 s"
    assert three_ranks[0]["alone"] == as_dict(0, 1, text)
    assert three_ranks[0]["alone again"] == as_dict(0, 1, text)


def test_a_real_store(three_ranks: list[dict[str, Any]]) -> None:
    source = "torch.distributed (store)"
    expected = [as_dict(0, 2, source), as_dict(0, 1, source), as_dict(1, 2, source)]
    assert [found["store"] for found in three_ranks] == expected


def test_where_a_store_answers_what_an_engine_sets_alone_is_no_warning(
    three_ranks: list[dict[str, Any]],
) -> None:
    said = "SHARDAHEAD_LOCAL_RANK='0' is passed over: SHARDAHEAD_LOCAL_SIZE is not set"
    assert [found["said"] for found in three_ranks] == [[said]] * 3


def test_a_real_group(three_ranks: list[dict[str, Any]]) -> None:
    source = "torch.distributed (group)"
    expected = [as_dict(0, 2, source), as_dict(0, 1, source), as_dict(1, 2, source)]
    assert [found["group"] for found in three_ranks] == expected
    launcher = as_dict(5, 6, "LOCAL_RANK and LOCAL_WORLD_SIZE")
    assert [found["launcher"] for found in three_ranks] == [launcher] * 3
    assert [found["argument"] for found in three_ranks] == [as_dict(7, 8, "argument")] * 3


def test_a_group_of_some_ranks(three_ranks: list[dict[str, Any]]) -> None:
    # torch sorts the ranks of a new group: rank 0 comes first.
    source = "torch.distributed (group)"
    assert three_ranks[0]["part"] == as_dict(0, 2, source)
    assert three_ranks[1]["part"] == "this process is not in group"
    assert three_ranks[2]["part"] == as_dict(1, 2, source)
