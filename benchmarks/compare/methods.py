"""The ways to load, as each rank runs them. A method is prepared before the clock starts.

Preparing imports everything and joins what must be joined; it opens none of the files. What it
returns starts the load. Peers with a package of their own are in engines.py and streamers.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import torch

from cut import Wanted
from job import Job
from plain_loop import plain_weights, whole_tensor

Weights: TypeAlias = "Iterator[tuple[str, torch.Tensor]]"
Start: TypeAlias = "Callable[[], Weights]"

WHOLE_FILE_THREADS = 4
WHOLE_FILE_BLOCK_BYTES = 16 * 2**20
CATS_PER_NODE = 4
_POLL_SECONDS = 0.002


class NotInstalledError(Exception):
    """The method's package or program is not there; the text says what was looked for."""


class Place:
    """Which rank this is of how many here, and what it wants of each tensor."""

    def __init__(self, job: Job, rank: int) -> None:
        self.job = job
        self.rank = rank
        self.share = job.share(rank)
        self.size = job.size
        self.sharing = job.sharing

    def cut(self, weights: Weights) -> Weights:
        """This rank's part of each tensor, for loaders that yield all of them, and whole."""
        for name, tensor in weights:
            wanted = self.job.tensors.get(name)
            if wanted is None:
                continue
            if wanted.dim is None:
                yield name, tensor
            else:
                first, last = wanted.bounds(self.share, self.sharing)
                yield name, tensor.narrow(wanted.dim, first, last - first)

    def take(self, shard: Any, name: str) -> torch.Tensor:
        """This rank's part of a tensor of an open safetensors file."""
        wanted: Wanted = self.job.tensors[name]
        if wanted.dim is None:
            return whole_tensor(shard, name)
        first, last = wanted.bounds(self.share, self.sharing)
        tensor = shard.get_slice(name)
        part: torch.Tensor = tensor[first:last] if wanted.dim == 0 else tensor[:, first:last]
        return part

    def part(self, name: str, _shape: object, _dtype: object) -> tuple[int, int, int] | None:
        """The same, as `slices=` asks for it."""
        wanted = self.job.tensors[name]
        if wanted.dim is None:
            return None
        return (wanted.dim, *wanted.bounds(self.share, self.sharing))

    def plain(self) -> Weights:
        return plain_weights(self.job.files, self.take, self.job.tensors)


def plain(place: Place) -> Start:
    """safe_open, then get_tensor (get_slice for slices) of each key: no prefetch at all."""
    return place.plain


def plain_narrow(place: Place) -> Start:
    """The plain loop of who asks for whole tensors, and narrows them: as engines do."""
    return lambda: place.cut(plain_weights(place.job.files))


def vmtouch(place: Place) -> Start:
    """Rank 0 runs `vmtouch -t FILES`, the others wait for it; then the plain loop."""
    program = _program("vmtouch")
    return lambda: _after_rank_0(place, [program, "-q", "-t", *place.job.files], b"")


def cat(place: Place) -> Start:
    """Rank 0 runs four `cat FILE > /dev/null` at a time, the others wait; then the plain loop."""
    command = [_program("xargs"), "-0", "-n", "1", "-P", str(CATS_PER_NODE), _program("cat")]
    names = b"\0".join(os.fsencode(path) for path in place.job.files)
    return lambda: _after_rank_0(place, command, names)


def _after_rank_0(place: Place, command: list[str], stdin: bytes) -> Weights:
    warmed = Path(place.job.folder, "warmed")
    if place.rank == 0:
        subprocess.run(command, input=stdin, stdout=subprocess.DEVNULL, check=True)
        warmed.touch()
    while not warmed.exists():
        time.sleep(_POLL_SECONDS)
    yield from place.plain()


def whole_file(place: Place) -> Start:
    """Each rank reads files[local_rank::local_size] whole beside its plain loop: 4 Python threads,
    blocks of 16 MiB. The scheme that serving engines shipped first, written anew."""

    def start() -> Weights:
        mine = sorted(place.job.files)[place.rank :: place.size]
        threading.Thread(target=_read_whole, args=(mine,), daemon=True).start()
        return place.plain()

    return start


def _read_whole(paths: list[str]) -> None:
    with ThreadPoolExecutor(WHOLE_FILE_THREADS) as pool:
        list(pool.map(_read_file, paths))


def _read_file(path: str) -> None:
    with open(path, "rb", buffering=0) as file:
        while file.read(WHOLE_FILE_BLOCK_BYTES):
            pass


def shardahead(place: Place) -> Start:
    """shardahead.safetensors_weights_iterator(FILES); options come as SHARDAHEAD_ variables."""
    from shardahead import safetensors_weights_iterator

    def start() -> Weights:
        weights = safetensors_weights_iterator(place.job.files)
        return ReportedWeights(place.cut(weights), weights.prefetch)

    return start


def shardahead_parts(place: Place) -> Start:
    """The same, told what this rank wants: `names=` and `slices=`."""
    from shardahead import safetensors_weights_iterator

    def start() -> Weights:
        weights = safetensors_weights_iterator(
            place.job.files, names=list(place.job.tensors), slices=place.part
        )
        return ReportedWeights(weights, weights.prefetch)

    return start


def prefetching(place: Place) -> Start:
    """The plain loop inside `with shardahead.prefetching(FILES)`."""
    from shardahead import prefetching as beside

    def start() -> Weights:
        stack = ExitStack()
        handle = stack.enter_context(beside(place.job.files))

        def weights() -> Weights:
            with stack:
                yield from place.plain()

        return ReportedWeights(weights(), handle)

    return start


class ReportedWeights(Iterator["tuple[str, torch.Tensor]"]):
    """Weights together with the prefetch whose report belongs to the result."""

    def __init__(self, weights: Weights, prefetch: Any) -> None:
        self._weights = weights
        self._prefetch = prefetch

    def __next__(self) -> tuple[str, torch.Tensor]:
        return next(self._weights)

    def report(self) -> dict[str, Any] | None:
        return self._prefetch.report().to_dict() if self._prefetch is not None else None


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise NotInstalledError(f"no program {name} on PATH")
    return found
