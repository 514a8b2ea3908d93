"""torch.distributed.checkpoint through shardahead.checkpointing: the state that torch's own readers
load, and over the link what the load plans of a node's ranks name, once.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import KIB, MIB, MakeMount, eventually, result_of, start_python, worker_threads

from shardahead import Options
from shardahead.checkpointing.node_plan import NodePlan, by_node, in_file_order

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
dcp = pytest.importorskip("torch.distributed.checkpoint")

from safetensors.torch import save_file  # noqa: E402
from torch.distributed.checkpoint.api import CheckpointException  # noqa: E402
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader  # noqa: E402

from shardahead.checkpointing import (  # noqa: E402
    PrefetchingFileSystemReader,
    PrefetchingHuggingFaceStorageReader,
)

RANKS = 4
ROWS, COLUMNS, TENSORS = 512, 1024, 8  # 2 MiB each
# Each rank: how its state is cut, and which reader loads it. Prints what became of it.
COMMON = f"""
import json, os, sys
import torch, torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
folder, meeting, rank, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + meeting, rank=rank, world_size=size)
mesh = init_device_mesh("cpu", (size,))

def state(filled, dim):
    made = {{}}
    for i in range({TENSORS}):
        whole = torch.zeros({ROWS}, {COLUMNS})
        if filled:
            whole = torch.randn({ROWS}, {COLUMNS}, generator=torch.Generator().manual_seed(i))
        made[f"layers.{{i}}.weight"] = distribute_tensor(whole, mesh, [Shard(dim)])
    return made
"""
SAVE = (
    COMMON
    + """
dcp.save({**state(True, 0), "step": 7}, checkpoint_id=folder)
print("null")
"""
)
LOAD = (
    COMMON
    + """
from shardahead import checkpointing
name, dim = sys.argv[5], int(sys.argv[6])
reader = getattr(checkpointing, name)(folder)
found, right = state(False, dim), state(True, dim)
if name == "PrefetchingFileSystemReader":
    found["step"] = right["step"] = 0
dcp.load(found, storage_reader=reader)
if "step" in found:
    assert found.pop("step") == 7
    right.pop("step")
assert all(torch.equal(found[k].to_local(), right[k].to_local()) for k in right)
print(json.dumps(reader.prefetch.report().to_dict()))
"""
)


def run(
    script: str,
    size: int,
    folder: Path,
    meeting: Path,
    *arguments: str,
    env: dict[str, str] | None = None,
) -> list[Any]:
    ranks = [
        start_python(script, folder, meeting, str(rank), str(size), *arguments, env=env)
        for rank in range(size)
    ]
    return [result_of(rank) for rank in ranks]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What four ranks saved, each its rows."""
    folder = tmp_path_factory.mktemp("saved")
    run(SAVE, RANKS, folder / "step-7", folder / "meeting")
    return folder / "step-7"


@pytest.fixture(scope="module")
def tensors() -> dict[str, Any]:
    return {
        f"layers.{i}.weight": torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(i))
        for i in range(TENSORS)
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Any]) -> Path:
    """The same, as a folder of safetensors files."""
    folder = tmp_path_factory.mktemp("exported")
    names = [*tensors]
    for i in range(2):
        part = {name: tensors[name] for name in names[i::2]}
        save_file(part, folder / f"model-{i + 1:05}-of-00002.safetensors")
    return folder


def files_of(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.distcp"), *folder.glob("*.safetensors")])


def empty(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}


def reader_of(kind: str, folder: Path, **options: Any) -> Any:
    if kind == "safetensors":
        return PrefetchingHuggingFaceStorageReader(str(folder), **options)
    return PrefetchingFileSystemReader(folder)


# ---- ranks of one node ----


@pytest.mark.parametrize("dim", [0, 1], ids=["the rows that they saved", "columns"])
def test_the_ranks_of_a_node_bring_in_what_their_plans_name_once(
    saved: Path, make_mount: MakeMount, tmp_path: Path, dim: int
) -> None:
    mount = make_mount(saved)
    reader = "PrefetchingFileSystemReader"
    reports = run(LOAD, RANKS, mount.mountpoint, tmp_path / "meeting", reader, str(dim))
    size = sum(path.stat().st_size for path in files_of(saved))
    mount.wait_until_idle()
    metadata = (saved / ".metadata").stat().st_size
    assert mount.counters().bytes_served <= 1.03 * size + metadata
    # Each has a file of its own, or all have the same.
    together = RANKS if dim else 1
    assert [report["local_rank"] for report in reports] == [*range(together)] * (RANKS // together)
    for report in reports:
        assert report["complete"]
        assert (report["local_size"], report["partition"]) == (together, "dynamic")
        # Rows are in a file of the rank's own; of columns each rank needs every tensor.
        wanted = size if dim else size / RANKS
        assert wanted * 0.9 <= report["planned_bytes"] <= wanted * 1.1
    assert sum(report["read_bytes"] for report in reports) <= size


@pytest.mark.parametrize("dim", [0, 1], ids=["rows", "columns"])
def test_of_a_folder_of_safetensors_files_a_node_reads_its_ranks_parts(
    exported: Path, make_mount: MakeMount, tmp_path: Path, dim: int
) -> None:
    mount = make_mount(exported)
    reader = "PrefetchingHuggingFaceStorageReader"
    reports = run(LOAD, RANKS, mount.mountpoint, tmp_path / "meeting", reader, str(dim))
    size = sum(path.stat().st_size for path in files_of(exported))
    mount.wait_until_idle()
    assert mount.counters().bytes_served <= 1.03 * size
    for report in reports:
        assert report["complete"]
        if dim == 0:
            assert report["planned_bytes"] < 1.1 * size / RANKS


@pytest.mark.parametrize("dim", [0, 1], ids=["rows", "columns"])
def test_ranks_that_read_other_files_do_not_wait_for_each_others_window(
    saved: Path, make_mount: MakeMount, tmp_path: Path, dim: int
) -> None:
    mount = make_mount(saved)
    small = {"SHARDAHEAD_WINDOW_BYTES": "1MiB", "SHARDAHEAD_BLOCK_SIZE": "256KiB"}
    reader = "PrefetchingFileSystemReader"
    meeting = tmp_path / "meeting"
    reports = run(LOAD, RANKS, mount.mountpoint, meeting, reader, str(dim), env=small)
    assert all(report["complete"] for report in reports)
    assert all(report["window_bytes"] == MIB for report in reports)
    mount.wait_until_idle()
    size = sum(path.stat().st_size for path in files_of(saved))
    assert mount.counters().bytes_served <= 1.1 * size


# ---- one process ----


def test_only_what_is_asked_for_is_brought_in(
    exported: Path, make_mount: MakeMount, tensors: dict[str, Any]
) -> None:
    mount = make_mount(exported)
    name = "layers.5.weight"
    state = empty({name: tensors[name]})
    reader = PrefetchingHuggingFaceStorageReader(str(mount.mountpoint))
    dcp.load(state, storage_reader=reader, no_dist=True)
    assert torch.equal(state[name], tensors[name])
    assert reader.prefetch is not None
    report = reader.prefetch.report()
    assert report.complete
    assert report.planned_bytes == tensors[name].nbytes
    mount.wait_until_idle()
    # Beside it the headers, with what the kernel reads ahead of a fault.
    assert mount.counters().bytes_served <= tensors[name].nbytes + MIB


@pytest.mark.parametrize("kind", ["files of torch", "safetensors"])
def test_loads_follow_each_other_and_leave_nothing_running(
    saved: Path, exported: Path, tensors: dict[str, Any], kind: str
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    reader = reader_of(kind, saved)
    if kind == "safetensors":
        reader = reader_of(kind, exported, thread_count=2)
    reports = []
    for _ in range(2):
        state = empty(tensors)
        dcp.load(state, storage_reader=reader, no_dist=True)
        assert all(torch.equal(state[name], tensors[name]) for name in tensors)
        reports.append(reader.prefetch.report())
        reader.prefetch.cancel()
    assert all(report.complete for report in reports)
    del reader
    eventually(lambda: not worker_threads(), "threads remain")
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before, "descriptors remain")


def test_the_metadata_of_another_checkpoint_counts_where_a_load_names_it(
    saved: Path, tmp_path: Path, tensors: dict[str, Any]
) -> None:
    state = empty(tensors)
    reader = PrefetchingFileSystemReader(tmp_path / "not-there")
    dcp.load(state, checkpoint_id=saved, storage_reader=reader, no_dist=True)
    assert all(torch.equal(state[name], tensors[name]) for name in tensors)
    assert reader.prefetch is not None


# ---- where nothing is prefetched ----


@pytest.mark.parametrize("kind", ["files of torch", "safetensors"])
def test_switched_off_the_readers_are_those_of_torch(
    saved: Path,
    exported: Path,
    tensors: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setenv("SHARDAHEAD_DISABLE", "1")
    reader = reader_of(kind, exported if kind == "safetensors" else saved)
    state = empty(tensors)
    dcp.load(state, storage_reader=reader, no_dist=True)
    assert all(torch.equal(state[name], tensors[name]) for name in tensors)
    assert reader.prefetch is None
    assert not worker_threads()


@pytest.mark.parametrize("kind", ["files of torch", "safetensors"])
def test_where_pages_do_not_stay_nothing_is_read_twice(
    saved: Path, exported: Path, make_mount: MakeMount, tensors: dict[str, Any], kind: str
) -> None:
    source = exported if kind == "safetensors" else saved
    mount = make_mount(source, keep_cache=False)
    reader = reader_of(kind, mount.mountpoint)
    state = empty(tensors)
    dcp.load(state, storage_reader=reader, no_dist=True)
    assert all(torch.equal(state[name], tensors[name]) for name in tensors)
    assert not reader.prefetch.report().keeps_pages
    mount.wait_until_idle()
    size = sum(path.stat().st_size for path in files_of(source))
    assert mount.counters().bytes_served <= 1.3 * size


# ---- what goes wrong ----


def error_within(error: CheckpointException) -> OSError:
    """Of the only rank there is."""
    ((wrapped, _trace),) = error.failures.values()
    assert isinstance(wrapped, OSError), wrapped
    return wrapped


@pytest.mark.parametrize("kind", ["files of torch", "safetensors"])
def test_what_cannot_be_read_is_an_error_with_path_and_offset(
    saved: Path, exported: Path, make_mount: MakeMount, tensors: dict[str, Any], kind: str
) -> None:
    source = exported if kind == "safetensors" else saved
    mount = make_mount(source)
    path = mount.mountpoint / files_of(source)[1].name
    where = path.stat().st_size // 2
    mount.bad(path, where, 4 * KIB)
    reader = reader_of(kind, mount.mountpoint)
    with pytest.raises(CheckpointException) as caught:
        dcp.load(empty(tensors), storage_reader=reader, no_dist=True)
    error = error_within(caught.value)
    assert (error.errno, error.filename) == (errno.EIO, str(path))
    assert where - MIB <= vars(error)["offset"] <= where + 4 * KIB
    eventually(lambda: not worker_threads(), "threads remain")


def test_a_file_that_is_missing_is_told_as_torch_tells_it(
    exported: Path, tmp_path: Path, tensors: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in files_of(exported):
        (folder / path.name).symlink_to(path)

    class Losing(PrefetchingHuggingFaceStorageReader):
        def prepare_local_plan(self, plan: Any) -> Any:
            files_of(folder)[1].unlink()
            return super().prepare_local_plan(plan)

    with pytest.raises(CheckpointException):
        dcp.load(empty(tensors), storage_reader=Losing(str(folder)), no_dist=True)
    assert "nothing of" in caplog.text


def test_options_are_checked_when_a_reader_is_made(saved: Path) -> None:
    with pytest.raises(TypeError, match=r"options must be a shardahead\.Options, not"):
        PrefetchingFileSystemReader(saved, options=cast(Any, {}))
    reader = PrefetchingFileSystemReader(saved, options=Options(threads=1))
    assert isinstance(reader, dcp.FileSystemReader)
    assert issubclass(PrefetchingHuggingFaceStorageReader, HuggingFaceStorageReader)


# ---- what travels with the plans ----


def test_each_rank_is_told_what_it_brings_in_with_whom() -> None:
    plans = [
        NodePlan("a", (("__2_0.distcp", 10),)),
        NodePlan("b", (("__1_0.distcp", 10),)),
        NodePlan("a", (("__10_0.distcp", 10), ("__2_0.distcp", 20))),
        NodePlan("b", ()),
        NodePlan("a", (("__3_0.distcp", 10),)),
    ]
    found = by_node(plans)
    assert [(each.node, each.wanted) for each in found] == [(p.node, p.wanted) for p in plans]
    assert [(each.files, each.local_rank, each.local_size, each.groups) for each in found] == [
        (("__2_0.distcp", "__10_0.distcp"), 0, 2, 2),
        (("__1_0.distcp",), 0, 1, 2),
        (("__2_0.distcp", "__10_0.distcp"), 1, 2, 2),
        ((), 0, 1, 2),
        (("__3_0.distcp",), 0, 1, 2),
    ]
    assert by_node([]) == []
    assert in_file_order(["b", "a10", "a9", "b"]) == ("a9", "a10", "b")


@pytest.mark.parametrize(
    ("of_others", "groups"), [(1000, 3), (MIB, 1), (64 * MIB, 1), (10 * MIB // 64 - 1, 3)]
)
def test_a_little_of_anothers_file_leaves_it_its_own(of_others: int, groups: int) -> None:
    own = 10 * MIB
    if of_others > own:
        own = 64 * of_others + 64
    plans = [
        NodePlan("a", tuple((f"__{file}", own if file == rank else of_others) for file in range(3)))
        for rank in range(3)
    ]
    assert {each.groups for each in by_node(plans)} == {groups}


def test_ranks_that_a_third_leads_to_each_other_are_one_group() -> None:
    plans = [NodePlan("a", ((file, 1), (other, 1))) for file, other in ("ab", "cd", "ef", "be")]
    found = by_node(plans)
    assert ["".join(each.files) for each in found] == ["abef", "cd", "abef", "abef"]
    assert [each.local_rank for each in found] == [0, 0, 1, 2]


def test_a_plan_of_another_reader_is_left_as_it_is(saved: Path) -> None:
    from torch.distributed.checkpoint.planner import LoadPlan

    reader = PrefetchingFileSystemReader(saved)
    plans = [LoadPlan([], storage_data=NodePlan("a", ())), LoadPlan([], storage_data="other")]
    assert reader.prepare_global_plan(plans) == plans
