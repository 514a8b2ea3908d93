"""The public surface as a user writes it, for mypy and pyright, which `make lint` asks. Not run.

Types are asserted exactly; a line with two ignores must be an error to both, for a comment that
ignores nothing is one.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.distributed.checkpoint.storage import StorageReader
from typing_extensions import assert_type  # a stub of the type checkers; it need not be installed

import shardahead
from shardahead import (
    BuildInfo,
    CheckpointError,
    FileResidency,
    Files,
    KernelInfo,
    LoadProgress,
    LocalTopology,
    MemoryBudget,
    MemoryLimit,
    Mount,
    MountLayer,
    Names,
    Options,
    Part,
    PrefetchHandle,
    Progress,
    Replica,
    ReplicaFile,
    Report,
    Shard,
    Slices,
    StoredTensor,
    Weight,
    WeightsIterator,
    buffered_multi_thread_safetensors_weights_iterator,
    build_info,
    evict,
    local_topology,
    memory_budget,
    mount_of,
    prefetch_files,
    prefetching,
    pt_weights_iterator,
    replica_of,
    residency,
    safetensors_weights_iterator,
    stage,
    tensor_ranges,
)
from shardahead.checkpointing import (
    PrefetchingFileSystemReader,
    PrefetchingHuggingFaceStorageReader,
)


def files_of_any_kind(path: Path, names: list[str], folders: Iterator[os.PathLike[str]]) -> None:
    given: list[Files] = ["/models/m", b"/models/m", path, names, [path], folders, (path, "b")]
    for files in given:
        prefetch_files(files)
    prefetch_files(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    prefetch_files([3])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


def names_of_any_kind(some: frozenset[str]) -> None:
    kinds: list[Names] = [some, ["a"], {"a": 1}, lambda name: name.startswith("layers.0.")]
    for names in kinds:
        safetensors_weights_iterator("/models/m", names=names)
    wrong = [1]
    pt_weights_iterator("m", names=wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def parts_of_any_kind(some: dict[str, tuple[int, int, int]]) -> None:
    def of(name: str, shape: tuple[int, ...], dtype: str) -> Part:
        if dtype == "BF16" and len(shape) == 2:
            return (0, 0, shape[0] // 2)
        return (slice(0, 4), slice(None, -1)) if name == "a" else None

    kinds: list[Slices] = [of, some, {"a": None, "b": (0, 1, 2), "c": (slice(3),)}]
    for slices in kinds:
        safetensors_weights_iterator("/models/m", names=["a"], slices=slices)
        buffered_multi_thread_safetensors_weights_iterator("/models/m", slices=slices)
        pt_weights_iterator("/models/m", slices=slices)
    wrong = {"a": (0, 1)}
    pt_weights_iterator("m", slices=wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    (found,) = tensor_ranges("/models/m", names=["a"], slices=of, strict=False)
    assert_type(found, StoredTensor)
    assert_type(found.shape, tuple[int, ...])
    prefetch_files("/models/m", spans={found.file: found.ranges})


def options_of_all_kinds() -> Options:
    options = Options(
        threads=8,
        block_size="16MiB",
        strategy="pread",
        partition="block",
        window_bytes=0,
        inflight_bytes="64MiB",
        mode="auto",
        memory_budget_bytes=2**36,
        board_folder=Path("/dev/shm"),
        report=Path("/var/log/shardahead"),
    )
    assert_type(options.threads, "int | None")
    assert_type(Options.from_environment(), Options)
    assert_type(Options.from_environment({"SHARDAHEAD_THREADS": "4"}), Options)
    assert_type(dataclasses.replace(options, threads=4), Options)
    Options(strategy="fast")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Options(window_bytes=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Options(threads="4")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Options(thread=4)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    options.threads = 4  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    return options


def a_prefetch(options: Options, spans: dict[Path, list[tuple[int, int]]]) -> None:
    handle = prefetch_files("/models/m", 0, 1, 4, "16MiB", spans=spans, options=options)
    assert_type(handle, PrefetchHandle)
    assert_type(handle.wait(1.5), None)
    assert_type(handle.done, bool)
    assert_type(handle.errors, tuple[tuple[str, OSError], ...])
    assert_type(handle.shards, tuple[Shard, ...])
    assert_type(handle.progress(), Progress)
    assert_type(handle.progress().done_bytes, int)
    with prefetch_files("/models/m", consumer=True) as held:
        assert_type(held, PrefetchHandle)
        held.consumed(0, 4096)
    with prefetching(["/models/a", "/models/b"], strategy="auto", options=options) as beside:
        assert_type(beside, PrefetchHandle)
    handle.add_done_callback(lambda done: print(done.report().text()))
    prefetch_files("m", strategy="fast")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    prefetch_files("m", thread=4)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    prefetch_files("m", options={})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    prefetch_files("m", mode="mmap")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def of_a_build() -> None:
    found = build_info()
    assert_type(found, BuildInfo)
    assert_type(found["sanitizers"], tuple[str, ...])
    kernel: KernelInfo = found["kernel"]
    assert_type(kernel["cachestat"], bool)
    found["kernels"]  # type: ignore[typeddict-item]  # pyright: ignore[reportGeneralTypeIssues]


async def awaited(handle: PrefetchHandle) -> None:
    assert_type(await handle, Report)


def a_report(report: Report) -> None:
    assert_type(report.read_bytes, int)
    assert_type(report.keeps_pages, "bool | None")
    assert_type(report.bytes_per_second, float)
    assert_type(report.incomplete_reason(), "str | None")
    assert_type(report.errors, tuple[OSError, ...])
    assert_type(report.text(), str)
    report.read_bytes = 0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def show(progress: LoadProgress) -> None:
    assert_type(progress.name, str)
    assert_type(progress.consumed_bytes, int)


def loads(model: torch.nn.Module, options: Options) -> None:
    weights = safetensors_weights_iterator(
        "/models/m",
        mode="pread",
        partition="block",
        drop_after=True,
        progress=show,
        options=options,
    )
    assert_type(weights, WeightsIterator)
    assert_type(weights.prefetch, "PrefetchHandle | None")
    for name, tensor in weights:
        assert_type(name, str)
        assert_type(tensor, torch.Tensor)
        model.get_parameter(name).data.copy_(tensor)
    model.load_state_dict(dict(pt_weights_iterator("m", strategy="pread", options=options)))
    buffered = buffered_multi_thread_safetensors_weights_iterator("m", 8, inflight_bytes="64MiB")
    weight: Weight = next(buffered)
    assert_type(weight, tuple[str, torch.Tensor])
    buffered.close()
    with pt_weights_iterator("m", names=["a"], strict=False) as entered:
        assert_type(entered, WeightsIterator)
    try:
        next(buffered)
    except CheckpointError as error:
        assert_type(error.path, str)
        assert_type(error.tensor, "str | None")

    def wrong(progress: int) -> None:
        print(progress)

    safetensors_weights_iterator("m", progress=wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    safetensors_weights_iterator("m", mode="fast")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    safetensors_weights_iterator("m", True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def readers(path: Path, options: Options) -> None:
    ours = PrefetchingFileSystemReader(path, options=options)
    as_torch_has_it: StorageReader = ours
    assert as_torch_has_it.prepare_global_plan([]) == []
    assert_type(ours.prefetch, "PrefetchHandle | None")
    other = PrefetchingHuggingFaceStorageReader(str(path), 4, options=options)
    assert_type(other.prefetch, "PrefetchHandle | None")
    PrefetchingFileSystemReader(path, options=2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def replicas(path: Path, options: Options) -> None:
    def told(progress: Progress) -> None:
        assert_type(progress.done_bytes, int)

    replica = stage("m", path, progress=told, options=options)
    assert_type(replica, Replica)
    assert_type(replica.files, tuple[ReplicaFile, ...])
    assert_type(replica.paths, list[str])
    assert_type(replica_of(path, "local"), "Replica | None")
    safetensors_weights_iterator("m", replica=path)
    stage("m")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def this_node(path: Path) -> None:
    assert_type(residency(path), list[FileResidency])
    assert_type(evict(path)[0].resident_bytes, "int | None")
    assert_type(local_topology(), LocalTopology)
    assert_type(local_topology(local_rank=0, local_size=1).source, str)
    assert_type(memory_budget(), MemoryBudget)
    assert_type(memory_budget().limits, tuple[MemoryLimit, ...])
    assert_type(mount_of(path), Mount)
    assert_type(mount_of("/").layers, tuple[MountLayer, ...])
    assert_type(mount_of("/").option("rsize"), "str | None")
    assert_type(shardahead.__version__, str)
