"""The checkpoint as it is: made where none is given, its shards, tensors and contents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

from safetensors import safe_open

import shardahead
from cases import MIB, Case
from checkpoint import write_checkpoint
from cut import Wanted, union_bytes
from job import Job
from methods import Place
from rank import Consumer
from shardahead.checkpoint.safetensors_header import read_header

_LARGE_SHARD_MIB = 256
_SMALL_DIVISOR = 8  # a tensor of the usual size would fill several small shards


def make_checkpoint(case: Case, scratch: Path) -> Path:
    """The folder of the checkpoint of this case; made once for all cases that want the same."""
    folder = scratch / f"{case.shards}-shards-of-{case.size_mib}-mib"
    if not folder.exists():
        divisor = 1 if case.size_mib >= _LARGE_SHARD_MIB else _SMALL_DIVISOR
        size_bytes = case.shards * case.size_mib * MIB
        write_checkpoint(folder, size_bytes, case.shards, divisor=divisor)
    return folder


def shards_of(folder: Path) -> list[Path]:
    """In the order in which they are consumed."""
    return [Path(file.path) for file in shardahead.residency(folder)]


def tensors_of(files: Sequence[Path]) -> dict[str, Wanted]:
    """Every tensor, in the order in which the files hold them."""
    found = {}
    for path in files:
        ranges = read_header(str(path)).tensors
        with safe_open(path, framework="pt") as shard:
            for tensor in ranges:
                shape = tuple(shard.get_slice(tensor.name).get_shape())
                item_bytes = tensor.length // max(1, prod(shape))
                found[tensor.name] = Wanted(shape, item_bytes, offset=tensor.offset)
    return found


def union_of(files: Sequence[Path], job: Job) -> int:
    """Bytes of the files of which some rank of this node wants a part, in whole grains, with their
    headers.
    """
    total = 0
    for path in files:
        header = read_header(str(path))
        wanted = [job.tensors[t.name] for t in header.tensors if t.name in job.tensors]
        wanted.append(Wanted((header.data_offset,), 1))
        total += union_bytes(
            wanted, map(job.share, range(job.size)), job.sharing, path.stat().st_size
        )
    return total


def checksums_of(job: Job, files: Sequence[Path], rank: int) -> dict[str, int]:
    """What a rank must find, by the plain loop over the source."""
    here = replace(
        job,
        files=[str(path) for path in files],
        kill_rank=None,  # this process is no rank
        work_s_per_gib=0.0,
        verify=True,
    )
    consumer = Consumer(here, rank)
    consumer.consume(Place(here, rank).plain())
    return consumer.checksums
