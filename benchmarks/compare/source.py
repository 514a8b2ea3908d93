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
from cut import Wanted
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
                found[tensor.name] = Wanted(shape, tensor.length // max(1, prod(shape)))
    return found


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
